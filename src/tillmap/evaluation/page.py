"""The report as one HTML file that needs no other file and no network."""

import base64
import hashlib
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from importlib.resources import files
from typing import Any

import pandas as pd
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from tillmap.config.blocks import Section
from tillmap.core.taxonomy import Levels
from tillmap.evaluation.charts import Drawing
from tillmap.evaluation.report import TARGETS, Report
from tillmap.evaluation.slices import costliest_confusions

_CODE = ("src", "stages", "params.yaml", "dvc.yaml")  # what a commit says about a run; the rest is written by runs
_CONFUSIONS = 12  # shown for each arm
_WAYS = ("source", "in_tree")  # slices without a chart

Run = Mapping[str, Any]


def about_run(
    source: object, rows: pd.DataFrame, truth: pd.DataFrame, scored: str, devices: Mapping[str, str]
) -> dict[str, str]:
    """What was run, as names and texts in the order to show them.

    Args:
        source: the `data.source` of the params.
        rows: all rows of the split.
        truth: the scored rows.
        scored: what the scored rows are, such as "120 rows of the test set".
        devices: by arm, what it answered on.
    """
    sizes = rows["subset"].value_counts()
    return {
        "Data": str(source),
        "Rows": ", ".join(f"{count:,} {subset}" for subset, count in sizes.items()),
        "Scored on": scored,
        **({"Corrections": _corrections(rows, truth)} if "corrected" in rows else {}),
        "Commit": commit(),
        "Device": "; ".join(
            f"{device}: {', '.join(arm for arm, own in devices.items() if own == device)}"
            for device in dict.fromkeys(devices.values())
        ),
        "Software": f"tillmap {version('tillmap')}, Python {platform.python_version()}, {platform.system()}",
    }


def _corrections(rows: pd.DataFrame, truth: pd.DataFrame) -> str:
    """How many rows people corrected, and how many of the scored ones."""
    kinds = rows["corrected"].value_counts()
    changed, confirmed, added = (int(kinds.get(kind, 0)) for kind in ("changed", "confirmed", "added"))
    scored = int(truth["corrected"].notna().sum())
    return (
        f"{changed:,} labels changed, {confirmed:,} confirmed, {added:,} rows added to training; {scored:,} of the "
        "scored rows have a label that a person changed or confirmed"
    )


def commit() -> str:
    """The git commit of the working folder, and whether code or params differ from it; "not known" without git."""

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *words], capture_output=True, text=True, errors="replace", check=False)

    try:
        head = git("rev-parse", "--short=10", "HEAD")
        if head.returncode:
            return "not known"
        changed = git("diff", "--quiet", "HEAD", "--", *_CODE).returncode != 0
    except OSError:  # git is not installed
        return "not known"
    return head.stdout.strip() + (", with uncommitted changes" if changed else "")


def render(
    report: Report,
    levels: Levels,
    *,
    run: Run,
    params: Mapping[str, Any],
    drawings: Mapping[str, Drawing],
    recall: pd.DataFrame,
    costs: Mapping[str, Mapping[str, Any]],
    minutes: Mapping[str, float],
    rows: Mapping[str, Any],
    labels: Mapping[str, Any] | None,
) -> str:
    """The report's HTML.

    Every text is escaped. The page's policy forbids every other script, and everything from a network.

    Args:
        report: the scores.
        levels: the names of the levels.
        run: the result of `about_run`.
        params: blocks of params.yaml, by name.
        drawings: the charts by name, as `report.draw` returns them.
        recall: the result of `recall.of_whole_paths`.
        costs: the result of `ledger.bill_arms`.
        minutes: by arm, what training and answering took.
        rows: the result of `rows_shown`.
        labels: the result of `labels_shown`; None if the audit is off.
    """
    style, script = _static("colours.css") + _static("report.css"), _static("report.js")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"share": _share, "number": _number}
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    arms = sorted(report.scores, key=lambda arm: -report.scores[arm]["item_accuracy"])
    return environment.from_string(_static("report.html")).render(
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        arms=arms,
        scores=report.scores,
        versus=report.versus.set_index("arm").to_dict("index"),
        reference=next(iter(report.scores)),
        levels=[level for level in levels if any(level in score["accuracy"] for score in report.scores.values())],
        targets=[(target, f"at_{100 * target:.0f}") for target in TARGETS],
        missing=[
            (arm, at["why"])
            for arm in arms
            for at in report.scores[arm]["confidence"].values()
            if isinstance(at, Mapping) and "why" in at
        ],
        ways=_ways(report.slices),
        confusions={arm: _confusions(report, arm, levels) for arm in arms},
        recall={str(name): table.to_dict("records") for name, table in recall.groupby("retriever", sort=False)},
        costs=costs,
        minutes=minutes,
        charts={name: (drawing.title, Markup(drawing.svg)) for name, drawing in drawings.items()},
        run=run,
        params=_flat(params),
        probability=report.probability,
        rows=rows,
        labels=labels,
    )


def _ways(slices: pd.DataFrame) -> list[dict[str, Any]]:
    """The slices that have no chart and more than one value, as tables."""
    found = []
    for way in _WAYS:
        table = slices[slices["slice"] == way]
        if table["value"].nunique() > 1:
            found.append({"way": way, "values": table.to_dict("records")})
    return found


def _confusions(report: Report, arm: str, levels: Levels) -> list[dict[str, Any]]:
    table = costliest_confusions(report.marks[arm], levels.chain[-1], most=_CONFUSIONS)
    return table.to_dict("records")  # type: ignore[return-value]


def _flat(params: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Nested params by their dotted names. A block may have only some of its fields."""
    found: dict[str, str] = {}
    for name, value in params.items():
        if isinstance(value, Section):
            found |= _flat(vars(value), f"{above}{name}.")
        elif isinstance(value, Mapping):
            found |= _flat(value, f"{above}{name}.")
        else:
            found[f"{above}{name}"] = "null" if value is None else str(value)
    return found


def _static(name: str) -> str:
    return files(__package__).joinpath("static", name).read_text(encoding="utf-8")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _number(value: float, digits: int = 0) -> str:
    return f"{value:,.{digits}f}"
