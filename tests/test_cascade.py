"""The cascade: what it routes, what it asks, when it refuses. Its language model is a server of known accuracy."""

import json

import numpy as np
import pandas as pd
import pytest
from trained import set_params

from openai_server import KEY, LocalOpenAI
from stages import cascade
from tillmap.arms import schema
from tillmap.cascade.judge import agreement, route_scores, split_reason
from tillmap.cascade.report import score_routed
from tillmap.cascade.roles import KEPT, ROUTED, TRIAL
from tillmap.cascade.routing import keep_to_budget, plan_routes, threshold_of_budget
from tillmap.cascade.trial import judge, merge
from tillmap.config import paths
from tillmap.config.params import read_params
from tillmap.core.errors import ParamsError
from tillmap.core.files import OFF
from tillmap.core.taxonomy import CONTEST, LabelPath, LabelTree, Levels
from tillmap.evaluation.metrics import mark
from tillmap.retrieval.paths import paths_of_ranking
from tillmap.splitting.subsets import draw_pilot

LABELS = list(CONTEST)
PATHS = [LabelPath("food", f"group {i // 4}", f"module {i // 2}", f"brand {i}") for i in range(16)]
LINEAR_ROWS, TEST_ROWS = 300, 300
MODEL = "gpt-4o-mini-2024-07-18"


def drawn(rows, seed):
    """Confidences as a calibrated arm gives them, and which of its answers are right."""
    rng = np.random.default_rng(seed)
    confidence = rng.beta(0.8, 0.6, rows)
    return confidence, rng.random(rows) < confidence


def routed(confidences, **sizes):
    """A table of the free arm's predictions, all labelled."""
    subsets = [name for name, count in sizes.items() for _ in range(count)]
    split = ["test" if name == "test" else "train" for name in subsets]
    return pd.DataFrame(
        {"split": split, "id": range(len(subsets)), "subset": subsets, "confidence": confidences, "labelled": True}
    )


def test_only_rows_below_the_threshold_are_asked_and_few_of_them_tried():
    table = routed(np.linspace(0, 1, 60), calibration=20, holdout=20, test=20).sample(frac=1, random_state=1)
    routes = plan_routes(table.sort_index(), 0.2, 5, seed=1)
    test = routes[routes["subset"] == "test"]
    assert len(test) == 20
    assert (test["role"] == np.where(test["confidence"] < 0.2, ROUTED, KEPT)).all()
    assert (routes["role"] == TRIAL).sum() == 5
    assert set(routes["subset"]) == {"calibration", "test"}
    sure = routes[(routes["subset"] == "calibration") & (routes["role"] == KEPT)]
    assert 0 < len(sure) < (table.query("subset == 'calibration'")["confidence"] >= 0.2).sum(), "in the same proportion"
    unlabelled = table.assign(labelled=table["subset"] != "test").sort_index()
    holdout = plan_routes(unlabelled, 0.5, 5, seed=1).query("subset == 'holdout'")
    assert len(holdout) == 5, "drawn without a look at how sure they are"


def test_a_budget_goes_to_the_trial_and_then_to_the_least_sure():
    table = routed([*np.full(4, 0.1), *np.linspace(0.9, 0.0, 10)], calibration=4, test=10)
    assert threshold_of_budget(table["confidence"][4:], np.ones(10), 7.0, table["confidence"][:4], 4) == pytest.approx(
        0.3
    )
    assert threshold_of_budget([0.5, 0.2], [1, 1], 3.0, [0.3, 0.9], 1) == float("inf")
    assert threshold_of_budget([0.5, 0.2], [1, 1], 2.9, [0.3, 0.9], 1) == 0.5
    assert threshold_of_budget([0.5, 0.2], [1, 1], 0.5, [], 1) == 0.2
    assert threshold_of_budget([], [], 7.0, [], 4) == float("inf")
    routes = plan_routes(table, float("inf"), 4, seed=1)
    usd = dict.fromkeys(routes[["split", "id"]].itertuples(index=False, name=None), 1.0)
    kept = keep_to_budget(routes, usd, 7.0)
    assert (kept["role"] == TRIAL).sum() == 4
    assert kept.loc[kept["role"] == ROUTED, "confidence"].tolist() == pytest.approx([0.2, 0.1, 0.0])
    assert len(kept) == 14
    poor = keep_to_budget(routes, usd, 2.5)
    assert (poor["role"] == TRIAL).sum() == 2
    assert len(poor) == 12, "a held-out row that nobody tried is not answered"
    assert not (poor["role"] == ROUTED).any()


def predictions(paths, confidence=0.5, repair="none", status="ok", source="linear"):
    table = pd.DataFrame(paths, columns=LABELS)
    table.insert(0, "split", "train")
    table.insert(1, "id", range(len(paths)))
    return table.assign(confidence=confidence, repair=repair, in_tree=True, source=source, status=status)


def test_an_answer_that_is_none_leaves_the_free_arms():
    free = predictions([PATHS[0]] * 5)
    llm = predictions([PATHS[1]] * 4, 0.9, ["none", "vote", "none", "snapped"], ["ok", "ok", "error", "ok"], "rag")
    merged = merge(free, llm, None, CONTEST)
    assert merged["brand"].tolist() == ["brand 1", "brand 0", "brand 0", "brand 1", "brand 0"]
    assert merged["source"].tolist() == ["rag", "linear", "linear", "rag", "linear"]
    assert merged.columns.tolist() == free.columns.tolist()
    assert merged["in_tree"].dtype == free["in_tree"].dtype
    keys = list(llm[["split", "id"]].itertuples(index=False, name=None))
    bound = merge(free, llm, {key: {PATHS[0]} for key in keys} | {("train", 3): {PATHS[1]}}, CONTEST)
    assert bound["source"].tolist() == ["linear", "linear", "linear", "rag", "linear"]


def test_paths_that_end_early_are_merged_and_judged():
    levels = Levels(("division", "group", "class"))
    bread, rye = LabelPath("food", "bread", ""), LabelPath("food", "bread", "rye")
    rest = {"split": "train", "confidence": 0.5, "repair": "none", "in_tree": True, "status": "ok"}
    free, llm = (levels.columns([path] * 40).assign(id=range(40), source=arm, **rest)
                 for path, arm in ((rye, "linear"), (bread, "rag")))  # fmt: skip
    keys = list(llm[["split", "id"]].itertuples(index=False, name=None))
    merged = merge(free, llm, {key: {bread if key[1] else rye} for key in keys}, levels)
    assert merged["source"].tolist() == ["linear"] + ["rag"] * 39
    assert merged["class"].isna().tolist() == [False] + [True] * 39
    judged = judge(free, llm, merged, llm[["split", "id", *levels]], arm="linear", levels=levels, seed=1)
    assert judged.routes and (judged.free, judged.cascade) == (0.0, 39 / 40)


def test_a_gain_that_may_be_chance_is_none():
    truth = predictions([PATHS[0]] * 40)[["split", "id", *LABELS]]
    wrong = predictions([PATHS[1]] * 40)
    little = predictions([PATHS[0]] * 3 + [PATHS[1]] * 37)
    much = predictions([PATHS[0]] * 20 + [PATHS[1]] * 20)
    refused = judge(wrong, little, little, truth, arm="linear", levels=CONTEST, seed=1)
    assert not refused.routes
    assert "can't tell" in refused.reason and "linear answers every row" in refused.reason
    assert (refused.free, refused.llm, refused.rows) == (0.0, pytest.approx(3 / 40), 40)
    accepted = judge(wrong, much, much, truth, arm="linear", levels=CONTEST, seed=1)
    assert accepted.routes
    assert accepted.low > 0 and accepted.difference == pytest.approx(0.5)
    assert not judge(much, wrong, wrong, truth, arm="linear", levels=CONTEST, seed=1).routes


class Shop:
    """A project with what the cascade's stage reads: a calibrated linear arm, and a model at a provider."""

    def __init__(self, folder, base_url, pilot_rows=None, **changes):
        self.folder = folder
        folder.mkdir()
        off = dict.fromkeys(("nearest", "rerank", "rag", "llama", "openai"), False)
        self.set_params({
            "run": off | {"cascade": True, "pilot_rows": pilot_rows},
            "openai": {"mode": "retrieved", "engine": "openai_server", "examples": 1},
            "provider": {"base_url": base_url},
            "cascade": {"llm": "openai", "held_out_rows": 100, "target_accuracy": 0.8} | changes,
        })  # fmt: skip
        self._write_rows()
        self.write(
            folder / "models/openai/job.json",
            {"mode": "retrieved", "model": MODEL, "usd": 0.0, "trained_tokens": 0, "estimated_usd": 0.0},
        )

    def _write_rows(self):
        rng = np.random.default_rng(7)
        subsets = ["train"] * 32 + ["calibration"] * LINEAR_ROWS + ["test"] * TEST_ROWS
        true = [PATHS[i % 16] if i < 32 else PATHS[rng.integers(16)] for i in range(len(subsets))]
        rows = pd.DataFrame(true, columns=LABELS)
        ids = [*range(32 + LINEAR_ROWS), *range(TEST_ROWS)]
        rows.insert(0, "split", ["test" if subset == "test" else "train" for subset in subsets])
        rows.insert(1, "id", ids)
        rows = rows.assign(subset=subsets, retailer="shop", price=1.0)
        rows["description"] = [f"{row.split}ed item {row.id}" for row in rows.itertuples()]
        rows["product"] = rows["description"]
        asked = rows[32:].reset_index(drop=True)
        confidence, right = drawn(len(asked), 3)
        # Wrong or right, the truth is among the candidates.
        said = [PATHS[PATHS.index(path) ^ (not ok)] for path, ok in zip(true[32:], right, strict=True)]
        table = predictions(said, confidence.round(6)).assign(split=asked["split"], id=asked["id"])
        lines = [
            {"split": split, "id": row_id, "text": "", "status": "ok",
             "candidates": [[list(path), 0.6], [list(PATHS[PATHS.index(path) ^ 1]), 0.4]]}
            for split, row_id, path in zip(asked["split"], asked["id"], said, strict=True)
        ]  # fmt: skip
        for name in ("split", "candidates", "completions", "predictions"):
            (self.folder / "data" / name).mkdir(parents=True)
        rows.to_parquet(self.folder / "data/split/rows.parquet")
        tree = LabelTree.from_rows(rows[:32], CONTEST).to_table()
        tree.to_parquet(self.folder / "data/split/tree.parquet")
        ranked = {(line["split"], line["id"]): [(LabelPath(*path), share) for path, share in line["candidates"]]
                  for line in lines}  # fmt: skip
        shown = paths_of_ranking(ranked, CONTEST, 20)
        shown["neighbour"] = [PATHS.index(path) for path in CONTEST.paths(shown)]
        shown.to_parquet(self.folder / "data/candidates/paths.parquet")
        pd.DataFrame({"text": [], "about": []}, dtype="str").to_parquet(self.folder / "data/about.parquet")
        table.to_parquet(self.folder / "data/predictions/linear.parquet")
        (self.folder / "data/completions/linear.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        rules = {"format": "json", "unseen": False, "free_text": False, "calibrated": False}
        self.write(self.folder / "data/answer_rules/linear/rules.json", rules)
        self.rows, self.linear, self.tree = asked, table, LabelTree.from_table(tree)
        self.answers = dict(zip(asked["description"], true[32:], strict=True))

    @staticmethod
    def write(path, value):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))

    def set_params(self, changes):
        set_params(self.folder, changes)

    def run(self):
        """The stage's main function, in this process, in the shop's folder: what it returns."""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            patch.setenv("TILLMAP_STATE", str(self.folder / "state"))
            patch.setenv("OPENAI_API_KEY", KEY)
            return cascade.main(read_params(paths.PARAMS, schema(), cascade.PARAMS))

    def table(self, name):
        return pd.read_parquet(self.folder / name)

    def right(self, table, split="test"):
        marked = table[table["split"] == split].merge(self.rows, on=["split", "id"], suffixes=("", "_true"))
        true = marked[[f"{level}_true" for level in LABELS]].to_numpy(object)
        return (marked[LABELS].to_numpy(object) == true).all(axis=1)


@pytest.fixture
def service():
    """A provider whose model answers the true path for a known share of the rows, and else another of the tree's."""
    with LocalOpenAI() as server:
        server.asked = []
        yield server


def of_accuracy(service, shop, accuracy):
    def answer(body):
        content = body["messages"][-1]["content"]
        item = content.splitlines()[-1].split(" | ")[0]
        service.asked.append((item, content))
        path = shop.answers[item]
        place = PATHS.index(path) ^ (int(item.split()[-1]) % 100 >= 100 * accuracy)
        return " | ".join(PATHS[place][2:])

    service.answer = answer


def test_a_model_may_answer_with_a_letter(service, tmp_path):
    shop = Shop(tmp_path / "shop", service.base_url)
    shop.set_params({"openai": {"layout": "letters"}})
    of_accuracy(service, shop, 0.9)
    in_words = service.answer

    def letter(body):
        text, lines = in_words(body), body["messages"][-1]["content"].splitlines()
        return next(line[0] for line in lines if f"{line[1:]} (".startswith(f". {text} ("))

    service.answer = letter
    found = shop.run()
    assert found["trial"]["routes"]
    lines = (shop.folder / "data/cascade/completions.jsonl").read_text().splitlines()
    assert {len(json.loads(line)["text"].split(" | ")) for line in lines} == {2}
    assert shop.right(shop.table("data/cascade/predictions.parquet")).mean() > shop.right(shop.linear).mean() + 0.1


def test_a_model_that_gains_answers_the_routed_rows_and_no_other(service, tmp_path):
    shop = Shop(tmp_path / "shop", service.base_url)
    of_accuracy(service, shop, 0.9)
    service.cache_writes = 8
    found = shop.run()
    routes, merged = shop.table("data/cascade/routes.parquet"), shop.table("data/cascade/predictions.parquet")
    to_ask = routes[routes["role"] != KEPT].merge(shop.rows, on=["split", "id"])
    assert sorted(item for item, _ in service.asked) == sorted(to_ask["description"])
    assert (routes["role"] == TRIAL).sum() == 100
    test = routes[routes["split"] == "test"]
    sure = test[test["role"] == KEPT].merge(merged, on=["split", "id"])
    linear = sure.merge(shop.linear, on=["split", "id"], suffixes=("", "_linear"))
    assert (linear["brand"] == linear["brand_linear"]).all() and (sure["source"] == "linear").all()
    assert len(merged[merged["split"] == "test"]) == TEST_ROWS
    assert shop.right(merged).mean() > shop.right(shop.linear).mean() + 0.1
    assert set(merged.loc[merged["source"] == "openai", "id"]) <= set(to_ask["id"])
    assert found["trial"]["routes"] and found["trial"]["low"] > 0
    assert found["calls"] == len(service.asked) == found["to_try"] + found["to_ask"]
    assert found["calls_saved"] == len(sure)
    # By gpt-6-luna's prices. Of each prompt 4 tokens come from the server's cache, and 8 are written to it.
    prompts = sum(len(each["content"].split()) + 4 for body in service.bodies for each in body["messages"])
    lines = (shop.folder / "data/cascade/completions.jsonl").read_text().splitlines()
    told, calls = sum(len(json.loads(line)["text"].split()) for line in lines), found["calls"]
    by_hand = ((prompts - 12 * calls) * 0.1 + calls * (4 * 0.01 + 8 * 0.125) + told * 0.5) / 1e6
    assert found["usd"] == pytest.approx(by_hand, abs=1e-6) and found["usd"] <= sum(found["max_usd"].values())
    assert found["usd_saved"] == pytest.approx(by_hand / calls * len(sure), abs=1e-6)
    assert abs(shop.right(sure).mean() - 0.9) < 0.06, "150 rows"
    answered = merged[(merged["source"] == "openai") & (merged["split"] == "test")]
    assert abs(answered["confidence"].mean() - shop.right(answered).mean()) < 0.1
    assert all("Likely answers" in content for _, content in service.asked)
    calls = len(service.asked)
    shop.run()
    assert len(service.asked) == calls, "nothing is paid twice"


def test_a_model_that_does_not_gain_is_never_asked_about_a_new_row(service, tmp_path, caplog):
    shop = Shop(tmp_path / "shop", service.base_url)
    of_accuracy(service, shop, 0.3)
    with caplog.at_level("INFO", "tillmap"):
        found = shop.run()
    assert len(service.asked) == 100
    assert all(item.startswith("trained") for item, _ in service.asked)
    assert not found["trial"]["routes"]
    assert "no gain is shown" in found["trial"]["reason"] and found["trial"]["reason"] in caplog.text
    assert found["calls_saved"] == TEST_ROWS
    merged = shop.table("data/cascade/predictions.parquet")
    assert (merged["source"] == "linear").all()
    both = merged.merge(shop.linear, on=["split", "id"], suffixes=("", "_linear"))
    assert (both["brand"] == both["brand_linear"]).all() and len(shop.right(merged)) == TEST_ROWS


def test_a_budget_is_kept_to_and_goes_to_the_least_sure(service, tmp_path):
    shop = Shop(tmp_path / "shop", service.base_url, target_accuracy=None, budget_usd=0.005, held_out_rows=60)
    of_accuracy(service, shop, 1.0)
    found = shop.run()
    assert 0 < found["to_ask"] < TEST_ROWS
    assert 0.0045 < sum(found["max_usd"].values()) <= 0.005
    routes = shop.table("data/cascade/routes.parquet")
    test = routes[routes["split"] == "test"]
    asked, kept = (test.loc[test["role"] == role, "confidence"] for role in (ROUTED, KEPT))
    assert asked.max() <= kept.min()
    assert routes.loc[routes["role"] == TRIAL, "confidence"].max() <= kept.min() + 1e-9, "tried on such rows"
    assert len(service.asked) == found["to_try"] + found["to_ask"]
    assert found["usd"] <= 0.005


def test_a_pilot_asks_about_its_rows_and_a_full_run_about_the_others(service, tmp_path):
    shop = Shop(tmp_path / "shop", service.base_url, pilot_rows=60)
    of_accuracy(service, shop, 0.9)
    found = shop.run()
    answered = shop.table("data/cascade/predictions.parquet").query("split == 'test'")
    pilot = draw_pilot(shop.rows, 60, read_params(shop.folder / "params.yaml", schema()).seed)
    assert set(answered["id"]) == set(pilot["id"]) and found["test_rows"] == 60
    piloted = [item for item, _ in service.asked]
    assert 0 < found["to_ask"] < 60 and len(piloted) == 100 + found["to_ask"]
    shop.set_params({"run": {"pilot_rows": None}})
    complete = shop.run()
    everything = [item for item, _ in service.asked]
    assert complete["test_rows"] == TEST_ROWS
    assert complete["threshold"] == found["threshold"], "the calibration subset alone chooses it"
    assert len(everything) == len(set(everything)) == 100 + complete["to_ask"], "nothing is asked twice"
    routes = shop.table("data/cascade/routes.parquet").query("role == @ROUTED")
    assert set(everything[len(piloted) :]) == {f"tested item {row}" for row in routes["id"]} - set(piloted)


def test_a_cascade_that_is_off_says_so(tmp_path):
    shop = Shop(tmp_path / "shop", "http://127.0.0.1:9/v1")
    shop.set_params({"run": {"cascade": False}})
    assert shop.run() == {"off": True}
    assert [file.name for file in (shop.folder / "data/cascade").iterdir()] == [OFF]


# The judge: asked where the free arms disagree


def disagreeing(service, folder):
    """A shop whose second free arm, `nearest`, has the true path where `linear` is under 0.9 sure, else linear's."""
    shop = Shop(folder, service.base_url, asks="disagreement", target_accuracy=0.8)
    shop.set_params({"run": {"nearest": True}})
    lines = [json.loads(line) for line in (shop.folder / "data/completions/linear.jsonl").read_text().splitlines()]
    shop.disagree = set()
    for line, confidence, item in zip(lines, shop.linear["confidence"], shop.rows["description"], strict=True):
        said, truth = line["candidates"][0][0], list(shop.answers[item])
        line["candidates"] = [[truth if confidence < 0.9 else said, 0.7]]
        if line["candidates"][0][0] != said:
            shop.disagree.add(item)
    (shop.folder / "data/completions/nearest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return shop


def test_a_judge_is_asked_where_the_arms_disagree_and_sees_why(service, tmp_path):
    shop = disagreeing(service, tmp_path / "shop")
    of_accuracy(service, shop, 0.95)
    label = service.answer
    service.answer = lambda body: f"{label(body)} because the line says so."
    found = shop.run()
    assert found["threshold"] <= 0.5 and found["trial"]["routes"] and found["to_ask"] > 50
    asked = {item for item, _ in service.asked}
    assert len(asked) == len(service.asked) and asked <= shop.disagree, "nothing where they agree"
    item, content = service.asked[0]
    lines = content.splitlines()
    own, other = (next(line for line in lines if line.startswith(arm)) for arm in ("linear: ", "nearest: "))
    assert own.endswith("(0.60)") and other.endswith("(0.70)")
    assert own.split(" (")[0][len("linear: ") :] != other.split(" (")[0][len("nearest: ") :]
    assert any('(such as "trained item ' in line for line in lines), "a line of a candidate, as evidence"
    assert lines[-1].startswith(item) and "because" in content
    kept = [json.loads(line) for line in (shop.folder / "data/cascade/completions.jsonl").read_text().splitlines()]
    assert {record["reason"] for record in kept} == {"the line says so."}
    merged, routes = shop.table("data/cascade/predictions.parquet"), shop.table("data/cascade/routes.parquet")
    answered = merged[merged["source"] == "openai"].query("split == 'test'")
    assert len(answered) == found["to_ask"] and shop.right(answered).mean() > 0.85
    own_confidence = routes.merge(shop.linear, on=["split", "id"], suffixes=("", "_linear"))
    assert (own_confidence["confidence"] == own_confidence["confidence_linear"]).all()
    sure = routes.query("split == 'test' and role == @KEPT")["confidence"]
    assert found["expected_accuracy"] == pytest.approx(sure.mean(), abs=1e-6)


def test_a_judge_that_does_not_gain_is_not_asked_about_a_new_row(service, tmp_path):
    shop = disagreeing(service, tmp_path / "shop")
    of_accuracy(service, shop, 0.0)
    assert not shop.run()["trial"]["routes"]
    assert all(item.startswith("trained") for item, _ in service.asked)


def test_rows_are_routed_by_disagreement_first_and_then_by_confidence():
    scores = {
        "linear": {("test", 1): [(PATHS[0], 0.9)], ("test", 2): [(PATHS[0], 0.9)], ("test", 3): [(PATHS[0], 0.9)]},
        "nearest": {("test", 1): [(PATHS[0], 0.6)], ("test", 2): [(PATHS[1], 0.6)], ("test", 3): []},
    }
    agree = agreement(scores, [("test", 1), ("test", 2), ("test", 3)])
    assert agree.tolist() == [True, False, True]
    assert route_scores(np.array([0.2, 1.0, 0.8]), agree).tolist() == [0.6, 0.5, 0.9]


def test_a_reason_is_parted_from_its_answer():
    assert split_reason("butter | gold, because gldn is gold") == ("butter | gold", "gldn is gold")
    assert split_reason("butter | gold. Because it is gold") == ("butter | gold", "it is gold")
    assert split_reason("butter | gold") == ("butter | gold", None)
    for whole in ("butter | gold co.", "pads | because", "butter | gold because "):
        assert split_reason(whole) == (whole, None), "a label, or a reason that was cut off, is no reason"


def test_kept_and_routed_rows_are_scored_apart():
    truth = predictions([PATHS[0]] * 40)[["split", "id", *LABELS]].assign(product=range(40))
    said = {"linear": [PATHS[0]] * 25 + [PATHS[1]] * 15, "cascade": [PATHS[0]] * 35 + [PATHS[1]] * 5}
    marks = {arm: mark(predictions(paths), truth, arm, CONTEST) for arm, paths in said.items()}
    routes = truth[["split", "id"]].assign(role=[KEPT] * 20 + [ROUTED] * 20)
    found = score_routed(marks, routes, "linear", resamples=200, seed=1)
    assert (found["coverage"], found["accuracy_of_answered"], found["routed"]) == (0.5, 1.0, 20)
    assert found["accuracy_on_routed"] == {"linear": 0.25, "cascade": 0.75}
    assert found["change"]["difference"] == 0.25 and found["change"]["verdict"] == "better"
    all_kept = score_routed(marks, routes.assign(role=KEPT), "linear", resamples=200, seed=1)
    assert (all_kept["coverage"], all_kept["routed"], all_kept["accuracy_on_routed"]) == (1.0, 0, {})


@pytest.mark.parametrize(
    ("run", "settings", "says"),
    [
        ({}, {"target_accuracy": None}, "set one of them"),
        ({}, {"llm": "rag", "budget_usd": 1.0}, "has no price"),
        ({}, {"asks": "disagreement"}, "needs a second arm .*`-S run.nearest=true`"),
        ({"linear": False}, {}, "needs an arm that costs nothing.*`-S run.linear=true`"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, run, settings, says):
    shop = Shop(tmp_path / "shop", "http://127.0.0.1:9/v1", **settings)
    shop.set_params({"run": run})
    with pytest.raises(ParamsError, match=says):
        shop.run()


def test_where_no_threshold_can_be_promised_every_row_may_be_routed_and_it_says_so(service, tmp_path, caplog):
    shop = Shop(tmp_path / "shop", service.base_url, target_accuracy=0.99)
    of_accuracy(service, shop, 0.9)
    found = shop.run()
    assert found["threshold"] is None and found["coverage"] == 0 and found["to_ask"] == TEST_ROWS
    assert found["why"].startswith("no confidence keeps an accuracy of 0.99 with a probability of 0.9: of its 300 ")
    assert f"every row may be routed, because for linear {found['why']}" in caplog.text
