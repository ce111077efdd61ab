"""Builds the schema of params.yaml from the arms, and checks the file. Errors name the line."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, create_model
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tillmap.config import blocks
from tillmap.config.blocks import Section
from tillmap.core.errors import ParamsError


class Params(Section):
    """All of params.yaml except the blocks of the arms. `make_schema` adds one for each arm, under the arm's name."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    run: blocks.Run
    data: blocks.Data
    taxonomy: blocks.Taxonomy
    demo: blocks.Demo
    split: blocks.Split
    embedding: blocks.Embedding
    retrieval: blocks.Retrieval
    context: blocks.Outside
    train_llama: blocks.TrainLlama
    train_openai: blocks.TrainOpenAI
    provider: blocks.Provider
    cascade: blocks.Cascade
    vote: blocks.Vote
    review: blocks.Review
    audit: blocks.Audit
    costs: blocks.Costs
    engine: blocks.Engine
    postprocess: blocks.Postprocess
    evaluate: blocks.Evaluate

    def block(self, name: str) -> Any:
        """The block with this name, for example an arm's settings."""
        return getattr(self, name)

    @property
    def neighbours_vote(self) -> Any:
        """How the neighbours of a row vote: `retriever`, `k` and `power`, the settings of that arm."""
        return self.block("nearest")

    def is_on(self, arm: str) -> bool:
        return bool(getattr(self.run, arm))

    def needs(self, arm: str) -> bool:
        """Whether an arm's model is needed: the arm is on, or the cascade uses it."""
        return self.is_on(arm) or (self.run.cascade and self.cascade.llm == arm)


def make_schema(arms: Mapping[str, type[Section]], asked: Sequence[str]) -> type[Params]:
    """Build the schema of params.yaml.

    Args:
        arms: the block of each arm, by name.
        asked: the arms that ask a language model.
    """
    llm: Any = Literal[tuple(asked)]
    voters: Any = Annotated[list[Literal[tuple(arms)]], Field(min_length=1)]  # type: ignore[misc]
    run = create_model("Run", __base__=blocks.Run, **dict.fromkeys(arms, (bool, ...)))  # type: ignore[call-overload]
    cascade = create_model("Cascade", __base__=blocks.Cascade, llm=(llm, ...))
    vote = create_model("Vote", __base__=blocks.Vote, arms=(voters, ...))
    settings = {name: (block, ...) for name, block in arms.items()}
    return create_model(  # type: ignore[no-any-return,call-overload]
        "Params", __base__=Params, run=(run, ...), cascade=(cascade, ...), vote=(vote, ...), **settings
    )


# What reading YAML raises: RecursionError for what is nested too deep, others for tags such as `!!int x`.
NOT_YAML = (YAMLError, RecursionError, ValueError, TypeError, LookupError, AttributeError)


def read_params(path: Path, schema: type[Params], keys: Sequence[str] | None = None) -> Params:
    """Check all of params.yaml, and return only the `keys` that a stage declares in dvc.yaml (None: all).

    A key is a block (`split`) or one value of a block (`run.rag`). Reading anything else from the result raises
    AttributeError. So a stage cannot use a parameter whose change would not rerun it.

    Raises ParamsError, which names the line of the first mistake.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ParamsError(f"{path}: the file is not there; run this from the project's root") from error
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path}: not readable as UTF-8 text; restore it with `git checkout {path}`") from error
    params = check_params(text, path, schema)
    return params if keys is None else _only(params, keys)


def check_params(text: str, path: Path, schema: type[Params]) -> Params:
    """Check the text of a params.yaml. `path` is for errors. Raises ParamsError with the line of the first mistake."""
    try:
        tree = YAML().load(text)
        plain = _plain(tree)
    except NOT_YAML as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = f"{path}:{line + 1}" if line is not None else str(path)
        raise ParamsError(f"{where}: not readable as YAML; check quotes and indentation") from error
    if not isinstance(tree, dict):
        raise ParamsError(
            f"{path}: expected blocks such as `run:`, found nothing; restore it with `git checkout {path}`"
        )
    try:
        return schema.model_validate(plain)
    except ValidationError as error:
        raise ParamsError(_explain(path, tree, error, schema)) from None


def _only(params: Params, keys: Sequence[str]) -> Params:
    # `model_construct` skips validation and leaves out every other field. The value None in `blocks` is a whole block.
    blocks: dict[str, set[str] | None] = {}
    for key in keys:
        name, _, leaf = key.partition(".")
        if not leaf:
            blocks[name] = None
        elif blocks.get(name, set()) is not None:
            blocks.setdefault(name, set()).add(leaf)  # type: ignore[union-attr]
    chosen: dict[str, Any] = {}
    for name, leaves in blocks.items():
        block = getattr(params, name)
        chosen[name] = (
            block if leaves is None else type(block).model_construct(**{leaf: getattr(block, leaf) for leaf in leaves})
        )
    return type(params).model_construct(**chosen)


def _plain(node: Any) -> Any:
    """Convert ruamel's mapping and scalar classes to built-in types, which strict validation requires."""
    if isinstance(node, dict):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node


def _explain(path: Path, tree: Any, error: ValidationError, schema: type[Params]) -> str:
    # A misspelt key gives two errors, an unknown and a missing key. Show the unknown one: the user typed it.
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    location = [str(part) for part in first["loc"] if part not in ("float", "int", "constrained-str")]
    key, line = ".".join(location), _line(tree, location)
    where = f"{path}:{line}: {key}" if line else f"{path}: {key}"
    if first["type"] == "missing":
        return f"{where} is missing; add it (`git diff {path}` shows what changed)"
    if first["type"] == "extra_forbidden":
        known = _keys_beside(location, schema)
        meant = difflib.get_close_matches(location[-1], known, n=1)
        hint = f"did you mean {meant[0]}?" if meant else f"known here: {', '.join(known)}"
        return f"{where} is not a parameter; {hint}"
    message = first["msg"][0].lower() + first["msg"][1:]
    if location[-1] == "key_variable":  # do not print the value: someone may have pasted the API key itself
        return f"{where}: {message}; name the environment variable that holds the key, never the key itself"
    return f"{where}: {message}, but it is {_shown(first['input'])}; correct it there or with `-S {key}=VALUE`"


def _shown(value: Any) -> str:
    try:
        return f"{value!r:.200}"
    except ValueError:  # Python writes no number of thousands of digits; hexadecimal ones are read
        return "a number of thousands of digits"


def _keys_beside(location: Sequence[str], schema: type[Params]) -> list[str]:
    fields = schema.model_fields
    for name in location[:-1]:
        block = fields[name].annotation if name in fields else None
        fields = block.model_fields if isinstance(block, type) and issubclass(block, BaseModel) else {}
    return list(fields)


def _line(tree: Any, location: Sequence[str]) -> int | None:
    """The line of a key, from 1, or of the innermost block around it that exists."""
    line = None
    for name in location:
        if not isinstance(tree, dict) or name not in tree:
            break
        line = tree.lc.key(name)[0] + 1  # type: ignore[attr-defined]  # ruamel's mapping, not a plain dict
        tree = tree[name]
    return line
