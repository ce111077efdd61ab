"""The charts of an evaluation. Each takes a tidy table and gives a matplotlib figure.

`save` writes a figure as PNG and CSV, and `to_svg` makes it a part of a page. Arms get their colour and marker by their
order of appearance in a table. Charts agree if their tables have the same order.
"""

import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter, ScalarFormatter

from tillmap.core.csv_files import to_csv

# The palette of Okabe and Ito, which colour-blind readers can tell apart, without its yellow, too pale on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
_WAYS = {  # titles of slices whose names are not enough
    "brand_shown": "whether the text shows the brand",
    "catch_all": "catch-all path or other",
    "description_length": "characters of the description",
    "path_depth": "levels of the true path",
    "path_frequency": "training rows of the true path",
    "refund": "refund or not",
    "repair": "kind of repair of the answer",
}
_GREY = "0.45"
_LINE, _EDGE = "0.92", "0.9"  # of the grid, and between the values of a slice
_ON_CELLS = "0.05"  # dark, but not the black of the axes, which is light in a dark page; cells keep their colours
# Colours of a page, which change when it is dark
_OF_PAGE = {_LINE: "var(--edge)", _EDGE: "var(--edge)", _GREY: "var(--muted)", "0.75": "var(--muted)"} | {
    colour: "var(--ink)" if colour == "#000000" else f"var(--arm-{number})" for number, colour in enumerate(_COLOURS)
}
_PAGE_INCHES = 4.6  # 331 px, so that letters keep their size on a phone
_DPI = 150
_ROW_INCHES = 0.3


def save(figure: Figure, table: pd.DataFrame, folder: Path, name: str) -> tuple[Path, Path]:
    """Write the figure as NAME.png and its table as NAME.csv to `folder`. Files are replaced once they are complete.

    The same figure gives the same bytes with the same version of matplotlib. Letters that its font lacks, such as
    Chinese ones, are boxes in the picture; the table has them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    picture, numbers = folder / f"{name}.png", folder / f"{name}.csv"
    partial = folder / f".{name}.partial"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(partial, format="png", dpi=_DPI, metadata={"Software": None})
    partial.replace(picture)
    partial.write_text(to_csv(table, for_people=True), encoding="utf-8")
    partial.replace(numbers)
    return picture, numbers


@dataclass(frozen=True)
class Drawing:
    """A chart for a page: its title, and an `svg` element. Its colours are variables of the page's style sheet."""

    title: str
    svg: str


def to_svg(figure: Figure, name: str, *, narrow: bool = True) -> Drawing:
    """The figure as an SVG element without its title, whose letters are text. The figure is changed.

    Equal figures give equal texts. Names of labels are escaped.

    Args:
        figure: the figure.
        name: tells its ids from those of other charts on the page.
        narrow: makes it as wide as a phone, with the legend below.
    """
    title = figure.get_suptitle()
    figure.suptitle("")
    if narrow:
        _narrow(figure)
    buffer = StringIO()
    unsaid = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(buffer, format="svg", transparent=True, metadata=unsaid)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for colour, variable in _OF_PAGE.items():
        svg = svg.replace(f": {to_hex(colour)}", f": {variable}")  # as in `style="fill: #0072b2"`
    svg = re.sub(r"<style.*?</style>", "", svg, count=1, flags=re.DOTALL)  # its rules would hold for the whole page
    return Drawing(title, svg.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1).strip())


def _narrow(figure: Figure) -> None:
    axes = figure.axes[0]
    height = figure.get_figheight()
    legend = axes.get_legend()
    if legend is not None:
        handles, labels = axes.get_legend_handles_labels()
        legend.remove()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        height += 0.25 * -(-len(labels) // 3)
    figure.set_size_inches(_PAGE_INCHES, height)


def draw_arms(table: pd.DataFrame) -> Figure:
    """Draw the item accuracy of each arm and its interval, the best on top. Columns: arm, accuracy, low, high."""
    best_last = table.sort_values(["accuracy", "arm"])
    figure, axes = _canvas(7.5, 1.4 + 0.45 * len(table), "Item accuracy by arm, with 95% intervals")
    styles = _styles(table["arm"])
    lines = best_last[["arm", "accuracy", "low", "high"]].itertuples(index=False, name=None)
    for place, (arm, accuracy, low, high) in enumerate(lines):
        colour, marker = styles[arm]
        axes.plot([low, high], [place, place], color=colour, linewidth=2, solid_capstyle="butt")
        axes.plot(accuracy, place, color=colour, marker=marker, markersize=8)
        figures = f"{accuracy:.1%}  ({low:.1%} to {high:.1%})"
        axes.annotate(figures, (1.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=9)
    axes.set_yticks(range(len(best_last)), best_last["arm"])
    axes.set_ylim(-0.6, len(best_last) - 0.4)
    axes.set_xlabel("share of rows with all labels right")
    _as_share(axes, "x", upper=min(1.0, table["high"].max() * 1.05))
    return figure


def draw_slices(table: pd.DataFrame, way: str, most: int = 15) -> Figure:
    """Draw the accuracy of each arm for each value of one slice, from the table of `slices.score_slices`.

    The first `most` values of the table are drawn. The number of rows is shown if it is the same for all arms.
    """
    chosen = table[table["slice"] == way]
    values = list(dict.fromkeys(chosen["value"]))
    shown = values[:most]
    styles = _styles(table["arm"])
    arms = [arm for arm in styles if (chosen["arm"] == arm).any()]
    band = max(_ROW_INCHES, 0.11 * len(arms) + 0.1)
    some = f" (the {len(shown)} largest of {len(values)})" if len(shown) < len(values) else ""
    title = f"Accuracy by {_WAYS.get(way, way)}{some}, with 95% intervals"
    figure, axes = _canvas(8.5, 1.6 + band * len(shown), title)
    places = {value: place for place, value in enumerate(shown)}
    step = 0.8 / max(1, len(arms))
    for number, arm in enumerate(arms):
        rows = chosen[(chosen["arm"] == arm) & chosen["value"].isin(shown)]
        at = rows["value"].map(places) + (number - (len(arms) - 1) / 2) * step
        colour, marker = styles[arm]
        axes.hlines(at, rows["low"], rows["high"], color=colour, linewidth=1.4)
        axes.plot(rows["accuracy"], at, marker, color=colour, markersize=4.5, label=arm)
    for edge in range(1, len(shown)):
        axes.axhline(edge - 0.5, color=_EDGE, linewidth=0.8)
    axes.set_yticks(range(len(shown)), [_with_rows(chosen, value) for value in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlabel("share of rows right")
    _as_share(axes, "x")
    _add_legend(axes, "arm")
    return figure


def draw_confusion(table: pd.DataFrame, arm: str, level: str, most: int = 20) -> Figure:
    """Draw which labels an arm predicts for each true label, from the table of `slices.confusion`.

    A line shows the shares of one true label's rows. The `most` labels with the most rows have a line each; all others
    share one.
    """
    totals = table.groupby("true")["rows"].sum().sort_values(ascending=False, kind="stable")
    own = list(totals.index[:most])
    rest = "all others"
    folded = table.assign(**{side: table[side].where(table[side].isin(own), rest) for side in ("true", "predicted")})
    names = [*own, rest] if (folded[["true", "predicted"]] == rest).to_numpy().any() else own
    counts = folded.pivot_table(index="true", columns="predicted", values="rows", aggfunc="sum", fill_value=0)
    counts = counts.reindex(index=names, columns=names, fill_value=0)
    sums = counts.sum(axis=1)
    shares = counts.div(sums.clip(lower=1), axis=0).to_numpy()

    size, shown = 0.36 * len(names), _shortened(level)
    figure, axes = _canvas(size + 4.2, size + 2.6, f"{arm}: predicted {shown} for each true {shown}")
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1), aspect="equal")  # shows rare errors
    for line, column in np.argwhere(shares >= 0.01):
        share = shares[line, column]
        colour = "white" if share > 0.4 else _ON_CELLS
        axes.text(column, line, f"{100 * share:.0f}", ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(len(names)), [_shortened(name) for name in names], rotation=55, ha="right")
    axes.set_yticks(range(len(names)), [f"{_shortened(name)} ({sums[name]:,})" for name in names])
    axes.tick_params(length=0, labelsize=8)
    axes.spines[:].set_visible(False)
    axes.grid(False)
    axes.set_xlabel(f"predicted {shown}")
    axes.set_ylabel(f"true {shown} (rows)")
    bar = figure.colorbar(image, ax=axes, shrink=0.6, label="% of the true label's rows")
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=""))
    return figure


def draw_recall(table: pd.DataFrame) -> Figure:
    """Draw recall at K by retriever. Columns: retriever, and those of `metrics.recall_table` for the whole path."""
    figure, axes = _canvas(7, 4.5, "How often the true path is among the first K paths")
    _draw_recall_lines(axes, table, _styles(table["retriever"]))
    axes.set_xlabel("K: number of distinct paths (bands: 95% intervals)")
    axes.set_ylabel("recall of the true path")
    _as_share(axes, "y", upper=min(1.0, table["high"].max() * 1.1))
    _add_legend(axes, "retriever")
    return figure


def draw_level_recall(table: pd.DataFrame) -> Figure:
    """Draw recall at K of each level's label, by retriever. Columns: retriever, and those of `metrics.recall_table`."""
    levels, styles = list(dict.fromkeys(table["level"])), _styles(table["retriever"])
    figure, first = _canvas(2.2 * len(levels) + 3, 3.6, "How often the true label is among those of the first K paths")
    first.remove()
    panels = figure.subplots(1, len(levels), sharey=True, squeeze=False)[0]
    for axes, level in zip(panels, levels, strict=True):
        _draw_recall_lines(axes, table[table["level"] == level], styles)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="0.92", linewidth=0.8)
        axes.set_title(_shortened(level), fontsize=9)
        axes.set_xlabel("K")
    panels[0].set_ylabel("recall of the label")
    _as_share(panels[0], "y")
    _add_legend(panels[-1], "retriever")
    return figure


def _draw_recall_lines(axes: Axes, table: pd.DataFrame, styles: Mapping[str, tuple[str, str]]) -> None:
    for name, (colour, marker) in styles.items():
        rows = table[table["retriever"] == name].sort_values("k")
        axes.fill_between(rows["k"], rows["low"], rows["high"], color=colour, alpha=0.15, linewidth=0)
        axes.plot(rows["k"], rows["recall"], color=colour, marker=marker, label=name)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sorted(set(table["k"]))))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())


def draw_calibration(table: pd.DataFrame) -> Figure:
    """Draw accuracy against confidence. Columns: arm, and those of `calibration_curves.calibration_table`.

    Calibrated confidences lie on the diagonal. The area of a mark grows with its number of rows.
    """
    figure, axes = _canvas(6.5, 5, "Calibration: accuracy by confidence")
    axes.plot([0, 1], [0, 1], color=_GREY, linestyle="--", linewidth=1, label="calibrated")
    for arm, (colour, marker) in _styles(table["arm"]).items():
        rows = table[table["arm"] == arm].sort_values("confidence")
        area = 12 + 150 * rows["rows"] / rows["rows"].sum()
        axes.plot(rows["confidence"], rows["accuracy"], color=colour, marker=marker, markersize=4, label=arm)
        axes.scatter(rows["confidence"], rows["accuracy"], s=area, color=colour, marker=marker)
    axes.set_xlabel("mean confidence of the rows in a bin (area: rows)")
    axes.set_ylabel("share of these rows right")
    _as_share(axes, "x")
    _as_share(axes, "y")
    _add_legend(axes, "arm")
    return figure


def draw_coverage(table: pd.DataFrame, targets: Iterable[float] = (0.8, 0.9, 0.95)) -> Figure:
    """Draw accuracy against the share of rows answered. Columns: arm, and those of `calibration_curves.coverage_curve`.

    `targets` are accuracies that are drawn as lines.
    """
    figure, axes = _canvas(6.5, 4.5, "Accuracy if only the most confident rows are answered")
    for target in targets:
        axes.axhline(target, color=_GREY, linestyle=":", linewidth=1)
        axes.annotate(f"{target:.0%} right", (0.0, target), ha="left", va="bottom", fontsize=8, color=_GREY)
    for arm, (colour, _) in _styles(table["arm"]).items():
        rows = table[table["arm"] == arm].sort_values("coverage")
        axes.plot(rows["coverage"], rows["accuracy"], color=colour, linewidth=1.8, label=arm)
    axes.set_xlabel("share of rows answered (coverage)")
    axes.set_ylabel("share of these rows right")
    _as_share(axes, "x")
    _as_share(axes, "y")
    axes.set_ylim(bottom=np.floor(10 * table["accuracy"].min()) / 10)
    _add_legend(axes, "arm")
    return figure


def draw_loss(table: pd.DataFrame, window: int = 20) -> Figure:
    """Draw the training loss and its running median over `window` steps. Columns: step, loss."""
    figure, axes = _canvas(6.5, 4.0, "Training loss")
    axes.plot(table["step"], table["loss"], color="0.75", linewidth=1, label="each step")
    smooth = table["loss"].rolling(window, min_periods=1, center=True).median()
    axes.plot(table["step"], smooth, color=_COLOURS[0], linewidth=2, label=f"median of {window} steps")
    axes.set_xlabel("step")
    axes.set_ylabel("loss on the answer, nats per token")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=9)
    return figure


def _canvas(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=_LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _add_legend(axes: Axes, title: str) -> None:
    axes.legend(loc="upper left", bbox_to_anchor=(1.05, 1), borderaxespad=0, frameon=False, title=title)


def _as_share(axes: Axes, side: str, upper: float = 1.0) -> None:
    limit = axes.set_xlim if side == "x" else axes.set_ylim
    limit(-0.01 * upper, upper * 1.01)
    axis = axes.xaxis if side == "x" else axes.yaxis
    axis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _styles(names: pd.Series) -> dict[str, tuple[str, str]]:
    """A colour and a marker for each name, by order of appearance."""
    return {
        name: (_COLOURS[i % len(_COLOURS)], _MARKERS[i % len(_MARKERS)]) for i, name in enumerate(dict.fromkeys(names))
    }


def _with_rows(table: pd.DataFrame, value: str) -> str:
    rows = set(table.loc[table["value"] == value, "rows"])
    return f"{_shortened(value)} ({rows.pop():,})" if len(rows) == 1 else _shortened(value)


def _shortened(name: str, most: int = 34) -> str:
    short = name if len(name) <= most else f"{name[: most - 1].rstrip()}…"
    return short.replace("$", r"\$")  # two would enclose a formula
