"""The questions of an arm that prompts a model, ready to be answered on any machine."""

import paths
from runner import Metrics, run_arm

from tillmap.arms import rag
from tillmap.labels import LabelTree
from tillmap.params import Params
from tillmap.sampling import rows_to_answer
from tillmap.storage import new_folder, read_table, write_json, write_jsonl

PARAMS = ("seed", "run.{arm}", "{arm}")


def main(params: Params, arm: str) -> Metrics:
    chosen = getattr(params, arm)
    rows = read_table(paths.ROWS)
    neighbours = read_table(paths.NEIGHBOURS / f"{chosen.retriever}.parquet")
    tree = LabelTree.from_table(read_table(paths.TREE))
    asked = rows_to_answer(rows, chosen.held_out_rows, params.seed)
    questions = rag.write_questions(asked, rows[rows["part"] == "train"], neighbours, tree, chosen)
    with new_folder(paths.PROMPTS / arm) as folder:
        if chosen.constrain == "tree":
            write_json(list(rag.target_of(chosen, tree).answers), folder / paths.ANSWERS)
        write_jsonl((question.as_record() for question in questions), folder / paths.QUESTIONS)
    return {"questions": len(asked)}


def write_off(arm: str) -> None:
    with new_folder(paths.PROMPTS / arm) as folder:
        write_json({"off": True}, folder / "off.json")


if __name__ == "__main__":
    run_arm(main, PARAMS, write_off)
