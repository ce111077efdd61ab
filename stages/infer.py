"""Gets an arm's answers. A killed run of a language model resumes."""

import time
from collections import Counter

from stages.context import context_of
from tillmap.arms import ARMS
from tillmap.arms.rules import AnswerRules
from tillmap.cli.stages import Metrics, run_arm_stage
from tillmap.config import paths
from tillmap.config.params import Params
from tillmap.core.completions import TOKENS, Completion
from tillmap.core.files import OFF, require_same_rows, write_json, write_jsonl
from tillmap.core.taxonomy import KEY
from tillmap.core.writing import new_folder

PARAMS = ("seed", "run.{arm}", "{arm}", "engine", "provider")
NO_ANSWER = Completion(None, None, "", "off").as_record()


def main(params: Params, name: str) -> Metrics:
    arm, context, began = ARMS[name], context_of(params, name), time.perf_counter()
    asked = context.asked
    answers = [answer.as_record() for answer in arm.answer(context, asked)]
    given = ((answer["split"], answer["id"]) for answer in answers)
    require_same_rows(f"the answers of {name}", given, asked[KEY].itertuples(index=False, name=None))
    write_jsonl(answers, paths.COMPLETIONS / f"{name}.jsonl")
    with new_folder(paths.RULES / name) as folder:
        AnswerRules.of_arm(arm, context).save(folder)
    seconds = context.notes.pop("seconds", time.perf_counter() - began)
    statuses = Counter(answer["status"] for answer in answers)
    usage = {
        "rows": len(answers),
        "test_rows": sum(answer["split"] == "test" for answer in answers),
        "empty": statuses["empty"],
        "error": statuses["error"],
        "rows_per_second": round(len(answers) / seconds, 2),
        **{tokens: sum(answer[tokens] for answer in answers) for tokens in TOKENS},
        **context.notes,
    }
    write_json(usage, paths.USAGE / f"{name}.json")
    return dict(usage)


def write_off(name: str) -> None:
    write_jsonl([NO_ANSWER], paths.COMPLETIONS / f"{name}.jsonl")
    with new_folder(paths.RULES / name) as folder:
        write_json({"off": True}, folder / OFF)
    write_json({"off": True}, paths.USAGE / f"{name}.json")


if __name__ == "__main__":
    run_arm_stage(main, PARAMS, write_off)
