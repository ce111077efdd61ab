"""Charts: what they show, and that what is saved can be read again."""

import matplotlib.image
import pandas as pd
import pytest

from tillmap.evaluation import charts

ARMS = pd.DataFrame(
    {
        "arm": ["linear", "llama", "nearest"],
        "accuracy": [0.55, 0.61, 0.27],
        "low": [0.53, 0.59, 0.25],
        "high": [0.57, 0.63, 0.29],
    }
)
SLICES = pd.DataFrame(
    [
        (arm, "retailer", f"shop {number}", 100 - number, 50, 0.5 + lift, 0.4, 0.7)
        for arm, lift in (("linear", 0), ("mine", 0.1))
        for number in range(20)
    ],
    columns=["arm", "slice", "value", "rows", "correct", "accuracy", "low", "high"],
)
CONFUSION = pd.DataFrame(
    [("larder", "larder", 90), ("larder", "drinks", 10), ("drinks", "drinks", 50), ("toys", "larder", 2)],
    columns=["true", "predicted", "rows"],
)
RECALL = pd.DataFrame(
    [(name, k, 0.3 + k / 50, 0.28 + k / 50, 0.32 + k / 50) for name in ("dense", "lexical") for k in (1, 5, 20)],
    columns=["retriever", "k", "recall", "low", "high"],
)
LEVEL_RECALL = pd.concat((RECALL.assign(level=level) for level in ("division", "class")), ignore_index=True)
CALIBRATION = pd.DataFrame(
    {"arm": "linear", "confidence": [0.1, 0.5, 0.9], "accuracy": [0.2, 0.5, 0.85], "rows": [10, 20, 70]}
)
COVERAGE = pd.DataFrame({"arm": "linear", "coverage": [0.2, 0.6, 1.0], "accuracy": [0.98, 0.8, 0.6]})

DRAWN = {
    "arms": (charts.draw_arms, ARMS),
    "slices": (lambda table: charts.draw_slices(table, "retailer"), SLICES),
    "confusion": (lambda table: charts.draw_confusion(table, "linear", "division"), CONFUSION),
    "recall": (charts.draw_recall, RECALL),
    "recall_by_level": (charts.draw_level_recall, LEVEL_RECALL),
    "calibration": (charts.draw_calibration, CALIBRATION),
    "coverage": (charts.draw_coverage, COVERAGE),
}


@pytest.mark.parametrize("name", DRAWN)
def test_saved_charts_open_and_repeat(name, tmp_path):
    draw, table = DRAWN[name]
    picture, numbers = charts.save(draw(table), table, tmp_path / "plots", name)
    pixels = matplotlib.image.imread(picture)
    assert min(pixels.shape[:2]) > 200
    assert pixels.std() > 0.01
    pd.testing.assert_frame_equal(pd.read_csv(numbers), table, check_dtype=False)
    again, _ = charts.save(draw(table), table, tmp_path / "again", name)
    assert again.read_bytes() == picture.read_bytes()
    assert sorted(path.name for path in picture.parent.iterdir()) == [f"{name}.csv", f"{name}.png"]


@pytest.mark.parametrize("name", DRAWN)
def test_axes_are_labelled_and_titled(name):
    draw, table = DRAWN[name]
    figure = draw(table)
    assert figure.get_suptitle()
    assert figure.axes[0].get_xlabel()


def test_the_best_arm_is_on_top():
    labels = [label.get_text() for label in charts.draw_arms(ARMS).axes[0].get_yticklabels()]
    assert labels == ["nearest", "linear", "llama"]


def test_many_values_are_cut_to_the_largest_and_the_title_says_so():
    figure = charts.draw_slices(SLICES, "retailer", most=3)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["shop 0 (100)", "shop 1 (99)", "shop 2 (98)"]
    assert "the 3 largest of 20" in figure.get_suptitle()


def test_rare_labels_share_a_line_of_the_confusion():
    axes = charts.draw_confusion(CONFUSION, "linear", "division", most=1).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["larder (100)", "all others (52)"]
    assert axes.images[0].get_array().tolist() == [[0.9, 0.1], [pytest.approx(2 / 52), pytest.approx(50 / 52)]]


@pytest.mark.filterwarnings("error")
def test_labels_of_any_script_and_with_signs_are_drawn(tmp_path):
    names = {"shop 0": "$5 \\and $9", "shop 1": "茶", "shop 2": "x" * 80}
    table = SLICES.assign(value=SLICES["value"].replace(names))
    picture, numbers = charts.save(charts.draw_slices(table, "retailer"), table, tmp_path, "by_retailer")
    assert picture.stat().st_size > 1000 and {"茶", "$5 \\and $9"} <= set(pd.read_csv(numbers)["value"])


def test_a_level_may_have_a_name_that_reads_as_a_formula(tmp_path):
    figure = charts.draw_confusion(CONFUSION, "linear", r"$\nonsense$")
    assert charts.save(figure, CONFUSION, tmp_path, "confusion")[0].stat().st_size > 1000


def test_an_arm_keeps_its_colour_in_every_chart():
    colours = {
        line.get_label(): line.get_color()
        for figure in (charts.draw_coverage(COVERAGE), charts.draw_slices(SLICES, "retailer"))
        for line in figure.axes[0].lines
    }
    alone = charts.draw_slices(SLICES[SLICES["arm"] == "linear"], "retailer").axes[0].lines[0]
    assert alone.get_color() == colours["linear"] != colours["mine"]


def test_a_failed_save_leaves_the_old_files(tmp_path):
    charts.save(charts.draw_arms(ARMS), ARMS, tmp_path, "arms")
    before = (tmp_path / "arms.png").read_bytes()
    broken = charts.draw_arms(ARMS)
    broken.axes[0].set_xlabel("$unclosed")
    broken.axes[0].set_ylabel(r"$\nonsense$")
    with pytest.raises(ValueError, match="nonsense"):
        charts.save(broken, ARMS, tmp_path, "arms")
    assert (tmp_path / "arms.png").read_bytes() == before
