"""The judge: which rows the free arms disagree about, and the question that shows a model what each of them says."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tillmap.core.completions import Question
from tillmap.core.taxonomy import Key
from tillmap.llm.interface.answer_formats import AnswerFormat
from tillmap.postprocessing.calibration import CandidateScores

_SAY = "Labellers do not agree about the last line. Each says, with its confidence:"
_ANSWER = 'Answer with one of the likely answers, then "because" and your reason in a few words.'
_BECAUSE = re.compile(r"[\s,.;:]+because\s+(?=\S)", re.IGNORECASE)


def agreement(scores: Mapping[str, CandidateScores], keys: Sequence[Key]) -> npt.NDArray[np.bool_]:
    """Whether all free arms find the same path most probable for each row. An arm without an answer does not count."""
    agree = [len({ranked[0][0] for arm in scores.values() if (ranked := arm.get(key))}) <= 1 for key in keys]
    return np.array(agree, dtype=bool)


def route_scores(confidence: npt.NDArray[np.float64], agree: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Scores by which rows are routed, the lowest first: rows without agreement up to 0.5, the others above.

    Within each half the rows keep the order of their confidence. So a threshold up to 0.5 asks about disagreements
    alone. It is higher only if agreement does not reach the target accuracy; then rows are asked that the arms agree
    about with low confidence.
    """
    return (confidence + agree) / 2


def show_opinions(question: Question, scores: Mapping[str, CandidateScores], answer_format: AnswerFormat) -> Question:
    """A question that lists candidates, with each free arm's answer and confidence before them."""
    *before, last = question.messages
    said = [
        f"{arm}: {answer_format.encode(ranked[0][0])} ({ranked[0][1]:.2f})"
        for arm, ranks in scores.items()
        if (ranked := ranks.get((question.split, question.id)))
    ]
    content = "\n".join([_SAY, *said, "", _ANSWER, "", last["content"]])
    return replace(question, messages=[*before, {"role": last["role"], "content": content}])


def split_reason(text: str) -> tuple[str, str | None]:
    """An answer and its reason; None if it gives none, as where the allowed answers leave no room for one."""
    answer, *reason = _BECAUSE.split(text, maxsplit=1)
    return answer, reason[0].strip() if reason else None
