"""The rules of an arm's answers. They are saved with its completions, so that these can be read without the arm."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tillmap.arms.base import Arm
from tillmap.arms.context import Context
from tillmap.core.files import of_this_version, read_json, read_table, write_json, write_table
from tillmap.core.taxonomy import LabelTree
from tillmap.llm.interface.answer_formats import ANSWER_FORMATS

_RULES, _PATHS = "rules.json", "paths.parquet"
_FLAGS = ("unseen", "free_text", "calibrated")


@dataclass(frozen=True)
class AnswerRules:
    """How an arm's answers are read.

    Attributes:
        format: the answer format: `json`, `joined` or `short`.
        unseen: whether an answer may be a path that is not a known one.
        free_text: whether a language model wrote the answers, so that labels may need repair by meaning.
        paths: the paths that may be answered; None means those of the training subset.
        calibrated: whether the share of an answer says how likely it is right.
    """

    format: str
    unseen: bool
    free_text: bool
    paths: LabelTree | None
    calibrated: bool = False

    @classmethod
    def of_arm(cls, arm: Arm, context: Context) -> Self:
        """The rules of an arm with the settings of its context."""
        own = type(arm).known_paths is not Arm.known_paths  # else the tree would be saved once more for every arm
        return cls(
            arm.answer_format(context.settings),
            arm.answers_unseen(context.settings),
            not arm.free,
            arm.known_paths(context) if own else None,
            arm.is_calibrated(context),
        )

    def save(self, folder: Path) -> None:
        """Write the rules into an empty folder."""
        write_json({"format": self.format, **{flag: getattr(self, flag) for flag in _FLAGS}}, folder / _RULES)
        if self.paths is not None:
            write_table(self.paths.to_table(), folder / _PATHS)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises InputError if a file is missing or damaged, ModelError if it is of another version.
        """
        paths = folder / _PATHS
        tree = LabelTree.from_table(read_table(paths)) if paths.is_file() else None
        written = read_json(folder / _RULES)
        with of_this_version(folder / _RULES):
            format = written.pop("format")
            flags = [written.pop(name) for name in _FLAGS]
            if format not in ANSWER_FORMATS or any(type(flag) is not bool for flag in flags) or written:
                raise ValueError("not the rules of answers")
            unseen, free_text, calibrated = flags
            return cls(format, unseen, free_text, tree, calibrated)
