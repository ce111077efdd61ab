"""The questions of an arm that prompts a model, and what it is tuned on, ready for any machine."""

from runner import Metrics, run_arm

from tillmap.arms import llama, openai, rag
from tillmap.config import paths
from tillmap.config.params import Params
from tillmap.core.files import new_folder, read_table, write_json, write_jsonl
from tillmap.core.taxonomy import LabelTree
from tillmap.splitting.samples import sample_for_training, sample_report
from tillmap.splitting.subsets import rows_to_answer

PARAMS = ("seed", "run.{arm}", "run.cascade", "cascade.llm", "{arm}")
ARMS = {"rag": rag, "llama": llama, "openai": openai}
TUNED = ("llama", "openai")


def main(params: Params, arm: str) -> Metrics:
    chosen, module = getattr(params, arm), ARMS[arm]
    rows = read_table(paths.ROWS)
    labelled = rows[rows["subset"] == "train"]
    neighbours = read_table(paths.NEIGHBOURS / f"{chosen.retriever}.parquet")
    tree = LabelTree.from_table(read_table(paths.TREE))
    # A row of a part that nothing is fitted or scored on would be asked for nothing.
    scored = rows.loc[rows["subset"] == "test", "brand"].notna().any()
    used = rows["subset"].isin(("test", "calibration") if scored else ("test", "calibration", "holdout"))
    asked = rows_to_answer(rows[used], chosen.held_out_rows, params.seed)
    questions = module.write_questions(asked, labelled, neighbours, tree, chosen)
    metrics: Metrics = {"questions": len(asked)}
    with new_folder(paths.PROMPTS / arm) as folder:
        if chosen.constrain != "off":
            write_json(module.answer_format_of(chosen, tree).allowed_to_all(chosen), folder / paths.ANSWERS)
        write_jsonl((question.as_record() for question in questions), folder / paths.QUESTIONS)
        if arm in TUNED:
            sample = sample_for_training(labelled, chosen.sample_rows, chosen.sample_policy, params.seed)
            conversations = module.write_training(sample, tree, chosen)
            write_jsonl(({"messages": messages} for messages in conversations), folder / paths.TRAINING)
            metrics |= {"sample": sample_report(sample, labelled), "all": sample_report(labelled, labelled)}
    return metrics


def write_off(arm: str) -> None:
    with new_folder(paths.PROMPTS / arm) as folder:
        write_json({"off": True}, folder / "off.json")
        if arm in TUNED:
            write_jsonl([], folder / paths.TRAINING)


if __name__ == "__main__":
    run_arm(main, PARAMS, write_off, Params.needs)
