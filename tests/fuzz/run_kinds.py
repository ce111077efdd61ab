"""The kinds of files that a run reads again: what the stages before `evaluate` wrote, and what killed runs saved."""

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pandas as pd
from kind import BY_ENDING, IN, Files, Kind, own, params_here, parquet, refusing

from stages import audit, evaluate, infer, prompts
from tillmap.arms import ARMS
from tillmap.cli.checks.sharing import without_git
from tillmap.cli.private import keep_private
from tillmap.config import paths
from tillmap.core.completions import Completion, Question, finished
from tillmap.core.files import read_jsonl, read_table, write_json, write_jsonl, write_table
from tillmap.core.run_state import state_folder
from tillmap.llm.interface.inference import Save, answer_missing
from tillmap.serving.batch import label_feed
from tillmap.serving.feed import open_feed
from tillmap.serving.labeller import Labeller, open_arm

# All that a run wrote before `evaluate`

ARMS_ON = {"nearest": False, "rerank": False, "vote": False, "rag": True}


@cache
def _evaluated_params() -> Any:
    params = params_here()
    on = params.run.model_copy(update=ARMS_ON)
    quick = params.evaluate.model_copy(update={"resamples": 20})
    return params.model_copy(update={"run": on, "evaluate": quick})


def _evaluated() -> Files:
    """What `evaluate` reads of two arms: linear, and one that asked a language model, which said what linear did."""
    for arm in ARMS:
        if not ARMS[arm].free:
            infer.write_off(arm)
    for name in ("dense", "hybrid"):
        write_table(read_table(paths.NEIGHBOURS / "lexical.parquet"), paths.NEIGHBOURS / f"{name}.parquet")
    audit.main(params_here())
    paths.ABOUT.write_bytes(parquet(pd.DataFrame({"text": ["milk"], "about": ["a drink"]})))
    prompts.main(_evaluated_params(), "rag")
    asked = [(each["split"], each["id"]) for each in read_jsonl(paths.PROMPTS / "rag" / "questions.jsonl")]
    said = {(each["split"], each["id"]): each for each in read_jsonl(paths.COMPLETIONS / "linear.jsonl")}
    write_jsonl((said[key] for key in asked), paths.COMPLETIONS / "rag.jsonl")
    table = read_table(paths.PREDICTIONS / "linear.parquet").set_index(["split", "id"]).loc[asked].reset_index()
    write_table(table.assign(source="rag"), paths.PREDICTIONS / "rag.parquet")
    shutil.copytree(paths.CONFIDENCE / "linear", paths.CONFIDENCE / "rag", dirs_exist_ok=True)
    shutil.copy(paths.USAGE / "linear.json", paths.USAGE / "rag.json")
    trained = {"train_seconds": 5.0, "device": "cpu", "losses": [[1, 2.5, 1e-4], [2, 2.25, 1e-4]]}
    write_json(trained, paths.USAGE / "train_linear.json")
    read = [paths.PREDICTIONS / f"{arm}.parquet" for arm in ("linear", "rag")]
    read += [paths.COMPLETIONS / f"{arm}.jsonl" for arm in ("linear", "rag")]
    read += [paths.USAGE / f"{name}.json" for name in ("linear", "rag", "train_linear")]
    read += [paths.CONFIDENCE / arm / "together.json" for arm in ("linear", "rag")]
    read += [paths.ROWS, paths.TREE, paths.NEIGHBOURS, paths.CANDIDATES / "paths.parquet", paths.AUDIT]
    return own(*map(str, read), str(paths.PROMPTS / "rag" / "questions.jsonl"))()


def _evaluate() -> None:
    # The drawings are seconds; of them only that of the losses is of a file's own numbers.
    # git, which the page asks for the commit, is no reader of these files.
    with patch("tillmap.evaluation.run.reports.draw", _draw_losses), patch("tillmap.evaluation.page.commit", str):
        evaluate.main(_evaluated_params())


def _draw_losses(_: object, recall: object, losses: dict[str, Any], *__: object) -> dict[str, Any]:
    from tillmap.evaluation.charts import draw_loss

    for steps in losses.values():
        draw_loss(pd.DataFrame(steps, columns=["step", "loss", "learning_rate"]))
    return {}


# What a killed `tillmap predict` left


class _KilledError(BaseException):
    pass


def _killed(*_: object, **__: object) -> None:
    raise _KilledError


FEED, OUT = Path(IN, "rows.jsonl"), Path(IN, "out.jsonl")


def _predict() -> bytes:
    labeller = open_arm("linear", params_here(), "own")
    with patch("tillmap.serving.labeller._FREE_ARM_ROWS", 3):
        label_feed(labeller, open_feed(FEED, params_here().data), OUT, "jsonl", explain=2)
    return OUT.read_bytes()


@cache
def _unbroken() -> bytes:
    return _predict()


def _pieces() -> Files:
    lines = [{"indoml_id": number, "description": f"tea {number}", "price": number} for number in range(8)]
    FEED.parent.mkdir(exist_ok=True)
    FEED.write_text("".join(json.dumps(line) + "\n" for line in lines))
    _unbroken()
    with patch("tillmap.serving.batch.write_answers", _killed), suppress(_KilledError):
        _predict()
    folder = (state_folder() / "predict").relative_to(Path.cwd())
    return own(str(folder))()


def _resume_prediction() -> None:
    assert _predict() == _unbroken()


# What a killed `infer` left

ASKED = [Question("test", number, [{"role": "user", "content": f"tea {number}"}]) for number in range(6)]


def _answer_all() -> list[Completion]:
    def ask(missing: list[Question], save: Save, _: Path) -> None:
        for start in range(0, len(missing), 2):
            batch = missing[start : start + 2]
            save([finished(each, f"a | {each.id}", logprob=-0.5, candidates=[["a", 1.0]]) for each in batch], 0.5)

    return answer_missing(ASKED, "m" * 32, ask, "fuzz").completions  # type: ignore[arg-type]


def _answer_log() -> Files:
    with patch(f"{__name__}.ASKED", ASKED[:4]):
        _answer_all()  # another run, whose answers count too
    _answer_all()
    found = own(str((state_folder() / "infer").relative_to(Path.cwd())))()
    return {name: content for name, content in found.items() if name.endswith(".jsonl")}


def _resume_answers() -> None:
    assert _answer_all() == [finished(each, f"a | {each.id}", logprob=-0.5, candidates=[["a", 1.0]]) for each in ASKED]


# What a confidence promises


def _promise(arm: str) -> Callable[[], None]:
    def run() -> None:
        labeller: Labeller = open_arm(arm, params_here(), "own")
        for target in (0.5, 0.99):
            wanted = params_here().review.model_copy(update={"target_accuracy": target})
            promised = type(labeller)(
                arm, params_here().model_copy(update={"review": wanted}), labeller.confidence, labeller.neighbours
            ).promise(40)
            assert promised is not None and promised.value >= 0, promised

    return run


# What a person may write: the pipeline, and the settings of DVC


def _project() -> Files:
    config = "[core]\n    remote = x\n    no_scm = true\n['remote \"x\"']\n    url = ../in/remote\n"
    return {
        "dvc.yaml": (Path(__file__).parents[2] / "dvc.yaml").read_bytes(),
        ".dvc/config": config.encode(),
    }


def _look_at_project() -> None:
    sound = Path("dvc.yaml").read_bytes()
    try:
        with refusing():
            keep_private(Path("dvc.yaml"))
    finally:
        Path("dvc.yaml").write_bytes(sound)
    without_git(Path())


RUN_KINDS: dict[str, Kind] = {
    "evaluate": Kind(_evaluated, _evaluate, BY_ENDING),
    "pieces": Kind(_pieces, _resume_prediction, BY_ENDING),
    "answer_log": Kind(_answer_log, _resume_answers, BY_ENDING),
    "project": Kind(_project, _look_at_project, "text"),
    "promise": Kind(own("models/confidence/linear/held_out.parquet"), _promise("linear"), BY_ENDING),
}
