"""The arms side by side: scores, slices, recall of the retrievers, pictures, and a table for the terminal."""

from pathlib import Path
from typing import Any

import pandas as pd
from runner import Metrics, run

from tillmap.cascade.routing import ASKED, FREE, choose_threshold
from tillmap.config import paths
from tillmap.config.params import ARMS, Params
from tillmap.core.errors import ParamsError
from tillmap.core.files import new_folder, read_json, read_table, write_json, write_text
from tillmap.evaluation import charts
from tillmap.evaluation.calibration_curves import (
    answered_from,
    calibration_table,
    coverage_curve,
    expected_calibration_error,
)
from tillmap.evaluation.comparison import compare_arms, comparison_table
from tillmap.evaluation.metrics import KEY, mark, recall_table, rounded, score_arm, score_held_back
from tillmap.evaluation.slices import catch_all_paths, confusion, costliest_confusions, score_slices, slice_rows
from tillmap.postprocessing.calibration import Confidence
from tillmap.providers.costs import PriceList, Rates, bill
from tillmap.retrieval import RETRIEVERS

PARAMS = ("seed", "run", "review", "evaluate", "provider.prices", "costs")
OWN_STAGE = ("cascade", "vote")
TARGETS = (0.8, 0.9, 0.95)  # accuracies of the rows that are answered
OTHER = "other"  # the slice of rows that are not of a catch-all path
Tables = dict[str, pd.DataFrame]


def main(params: Params) -> Metrics:
    rows = read_table(paths.ROWS)
    training = rows[rows["subset"] == "train"]
    arms = [arm for arm in ARMS if getattr(params.run, arm)]
    if not arms:
        raise ParamsError(f"{paths.PARAMS}: every arm is off; switch one on, say with `-S run.nearest=true`")
    predictions = {arm: read_table(paths.PREDICTIONS / f"{arm}.parquet") for arm in arms}
    truth = choose_truth(rows, predictions)
    draws = {"resamples": params.evaluate.resamples, "seed": params.seed}

    marks = {arm: mark(table, truth, arm) for arm, table in predictions.items()}
    scores: dict[str, dict[str, Any]] = {
        arm: score_arm(table, truth, arm, **draws) | speed(arm) for arm, table in predictions.items()
    }
    for arm, table in predictions.items():
        scores[arm] |= {"confidence": believe(arm, table, marks[arm], rows)} | expect(arm, table, rows)
    versus = compare_arms(marks, arms[0], **draws)  # the first arm that is on, the cheapest, is the reference
    for line in versus.itertuples():
        scores[str(line.arm)]["verdict"] = line.verdict
    recall = pd.concat(
        recall_table(read_table(paths.NEIGHBOURS / f"{name}.parquet"), truth, training, **draws).assign(retriever=name)
        for name in RETRIEVERS
    )
    kinds = slice_rows(truth, training, catch_all_paths(training))
    slices = pd.concat(score_slices(table, kinds, arm, **draws) for arm, table in marks.items())

    for arm in arms if params.review.min_confidence is not None else ():
        held = read_table(paths.REVIEW / f"{arm}.parquet")
        scores[arm]["held_back"] = score_held_back(mark(held, truth, arm))
    for line in slices[(slices["slice"] == "catch_all") & (slices["value"] == OTHER)].itertuples():
        scores[str(line.arm)]["without_catch_all"] = rounded(
            {"rows": line.rows, "item_accuracy": line.accuracy, "low": line.low, "high": line.high}
        )

    with new_folder(paths.PLOTS) as folder:
        draw(folder, scores, marks, recall, slices)
        write_text(comparison_table(scores) + "\n", folder / "table.txt")
    found = {"arms": scores, "recall": by_retriever(recall), "versus": versus.set_index("arm").to_dict("index")}
    if "cascade" in marks:
        found["cascade"] = score_routed(marks, draws)
    write_json({"scores": found}, paths.METRICS / "scores.json")
    write_json({"costs": {arm: spent(arm, params) for arm in arms}}, paths.METRICS / "costs.json")
    compact = {
        arm: {name: score[name] for name in ("item_accuracy", "low", "high")} | score["accuracy"]
        for arm, score in scores.items()
    }
    return {"arms": compact, "scored": "test" if truth["split"].eq("test").any() else "holdout", "rows": len(truth)}


def choose_truth(rows: pd.DataFrame, predictions: Tables) -> pd.DataFrame:
    """The rows to score: labelled test rows; where there are none, the `report` rows that all arms answered."""
    test = rows[(rows["subset"] == "test") & rows["brand"].notna()]
    if len(test):
        return test
    report = rows[rows["subset"] == "holdout"]
    for table in predictions.values():
        report = report.merge(table[KEY], on=KEY)
    return report


def score_routed(marks: Tables, draws: dict[str, int]) -> Metrics:
    """The cascade against the arm that answers for it, and every arm on the rows that are not sure enough for it."""
    routes = read_table(paths.PROMPTS / "cascade" / paths.ROUTES)
    roles = marks["cascade"][KEY].merge(routes[[*KEY, "role"]], on=KEY, how="left")["role"].to_numpy()
    sure, routed = roles == FREE, roles == ASKED
    right = {arm: table["right"].to_numpy() for arm, table in marks.items()}
    change = compare_arms({arm: marks[arm] for arm in ("linear", "cascade")}, "linear", **draws).iloc[0]
    return {
        "coverage": round(float(sure.mean()), 6),
        "accuracy_of_answered": round(float(right["linear"][sure].mean()), 6) if sure.any() else None,
        "routed": int(routed.sum()),
        "accuracy_on_routed": {arm: round(float(own[routed].mean()), 6) for arm, own in right.items() if routed.any()},
        "change": {name: round(float(change[name]), 6) for name in ("difference", "low", "high", "p_value")}
        | {"verdict": str(change["verdict"])},
    }


def believe(arm: str, predictions: pd.DataFrame, marks: pd.DataFrame, rows: pd.DataFrame) -> Metrics:
    """How far an arm's confidences can be trusted on the rows scored.

    For each target accuracy: the threshold that reaches it on the calibration subset, and the share (coverage) and the
    accuracy of the scored rows from there on; nothing where the arm answered none of that part.
    """
    part = rows[rows["subset"] == "calibration"].merge(predictions[KEY], on=KEY)
    found: Metrics = {"ece": expected_calibration_error(marks["confidence"], marks["right"])}
    if len(part):
        known = mark(predictions, part, arm)
        for target in TARGETS:
            threshold = choose_threshold(known["confidence"], known["right"], target)
            coverage, accuracy = answered_from(marks["confidence"], marks["right"], threshold)
            answered = {"threshold": threshold, "accuracy": accuracy} if coverage else {}
            found[f"at_{100 * target:.0f}"] = {"coverage": coverage, **answered}
    return dict(rounded(found))


def expect(arm: str, predictions: pd.DataFrame, rows: pd.DataFrame) -> Metrics:
    """The accuracy to expect of the test rows that have no labels, with its interval, where there are such rows."""
    new = rows.loc[(rows["subset"] == "test") & rows["brand"].isna(), KEY]
    asked = predictions.merge(new, on=KEY)
    fitted = paths.CONFIDENCE / arm / "together.json"
    if asked.empty or not fitted.is_file():
        return {}
    accuracy, low, high = Confidence.load(fitted).expected_accuracy(asked["confidence"])
    return {"expected": rounded({"rows": len(asked), "accuracy": accuracy, "low": low, "high": high})}


def speed(arm: str) -> Metrics:
    """Rows a second and tokens a row."""
    asked = measured("infer", arm)
    tokens = {name: asked.get(name, 0) / asked["rows"] for name in ("prompt_tokens", "completion_tokens")}
    return {"rows_per_second": asked["rows_per_second"], **(tokens if any(tokens.values()) else {})}


def measured(stage: str, arm: str) -> Metrics:
    """What a stage wrote down of an arm; one that is a stage of its own has asked and answered there."""
    if arm in OWN_STAGE:
        return dict(read_json(paths.METRICS / f"{arm}.json")[arm])
    return dict(read_json(paths.METRICS / stage / f"{arm}.json")[stage][arm])


def spent(arm: str, params: Params) -> Metrics:
    """The bill of an arm: tokens at the provider's prices, hours of one's own machine at the params' rates."""
    asked, rates = measured("infer", arm), Rates(**params.costs.model_dump())
    if arm == "openai" or asked.get("llm") == "openai":
        prices = PriceList.of(params.provider.prices.model_dump())
        return bill(asked, rates, prices=prices, job=read_json(paths.MODELS / "openai" / paths.JOB))
    if arm == "linear":
        seconds = read_json(paths.METRICS / "train_linear.json")["train_linear"]["seconds"]
        return bill(asked, rates, training={"seconds": seconds, "device": "cpu"})
    if arm == "llama":
        trained = read_json(paths.METRICS / "train_llama.json")["train_llama"]
        kind = "cpu" if trained["device"] == "cpu" else "gpu"
        return bill(asked, rates, training={"seconds": trained["train_seconds"], "device": kind})
    return bill(asked, rates)


def by_retriever(recall: pd.DataFrame) -> Metrics:
    return {
        str(name): {f"at_{line.k}": round(float(line.recall), 6) for line in table.itertuples()}
        for name, table in recall.groupby("retriever", sort=False)
    }


def draw(
    folder: Path, scores: dict[str, dict[str, Any]], marks: Tables, recall: pd.DataFrame, slices: pd.DataFrame
) -> None:
    arms = pd.DataFrame(
        [
            {"arm": arm, "accuracy": score["item_accuracy"], "low": score["low"], "high": score["high"]}
            for arm, score in scores.items()
        ]
    )
    reliability = pd.concat(
        calibration_table(table["confidence"], table["right"]).assign(arm=arm) for arm, table in marks.items()
    )
    coverage = pd.concat(
        coverage_curve(table["confidence"], table["right"]).assign(arm=arm) for arm, table in marks.items()
    )
    charts.save(charts.draw_arms(arms), arms, folder, "arms")
    charts.save(charts.draw_recall(recall), recall, folder, "recall")
    charts.save(charts.draw_reliability(reliability), reliability, folder, "reliability")
    charts.save(charts.draw_coverage(coverage), coverage, folder, "coverage")
    for way in slices["slice"].unique():
        if way not in ("all", "level", "source", "in_tree"):
            table = slices[slices["slice"] == way]
            charts.save(charts.draw_slices(table, way), table, folder, f"by_{way}")
    for arm, table in marks.items():
        matrix = confusion(table)
        charts.save(charts.draw_confusion(matrix, arm), matrix, folder, f"confusion_{arm}")
        costliest_confusions(table).to_csv(folder / f"costliest_{arm}.csv", index=False, lineterminator="\n")


if __name__ == "__main__":
    run(main, PARAMS)
