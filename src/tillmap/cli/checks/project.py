"""The params and the files that they name."""

import os
from collections.abc import Iterator
from pathlib import Path

from tillmap.arms import ARMS, schema
from tillmap.cli.checks.finding import Finding
from tillmap.config import paths
from tillmap.config.params import Params, read_params
from tillmap.core.errors import TillmapError
from tillmap.core.services import fault_of_key


def params(root: Path, params: list[Params]) -> Finding:
    """Whether params.yaml is valid; then it is added to `params`."""
    try:
        params.append(read_params(root / paths.PARAMS, schema()))
    except TillmapError as error:
        return Finding("params", False, str(error), "correct params.yaml")
    return Finding("params", True, "params.yaml is valid")


def data(root: Path, params: Params) -> Finding:
    """Whether DVC can read the source: it stops at a link that leads nowhere, such as the lock of an editor."""
    source = root / params.data.source
    links = [path for path in (source, *(source.rglob("*") if source.is_dir() else ())) if path.is_symlink()]
    lost = next((path for path in links if not path.exists()), None)
    if lost is not None:
        return Finding(
            "data", False, f"{lost} is a link that leads nowhere; DVC stops at it", "remove it, or correct it"
        )
    made = source.is_relative_to(root / paths.DEMO)
    if not source.exists() and not made:
        return Finding("data", False, f"{source} is not there", "correct data.source in params.yaml")
    return Finding("data", True, f"{source}" + ("" if source.exists() else ", which `dvc repro` makes"))


def keys(params: Params) -> Iterator[Finding]:
    """Whether the keys that are needed are set. Their values are never shown."""
    paid = [arm for arm in ARMS if ARMS[arm].paid and params.needs(arm)]
    why_paid = f"for the {paid[0]} arm" if paid else "for a paid arm"
    wanted: list[tuple[str, str, bool]] = [
        (params.provider.key_variable, why_paid, bool(paid)),
        ("HF_TOKEN", "for train_llama.hub_id", params.train_llama.hub_id is not None),
    ]
    for variable, why, needed in wanted:
        key = os.environ.get(variable, "").strip()
        place = fault_of_key(key)
        found = "set" if key else "not set" + ("" if needed else " (not needed)")
        found += f", but with a line break or a letter that is not ASCII, at place {place}" if place else ""
        yield Finding(
            f"key {variable}", (bool(key) and not place) or not needed, found, f"`export {variable}=...`, {why}"
        )


def corrections(root: Path, params: Params) -> Finding:
    """Whether the file of corrections is there, as DVC needs it, and has what was decided on this machine."""
    from tillmap.core.files import read_table
    from tillmap.core.taxonomy import LabelTree
    from tillmap.review.decisions import read_decisions
    from tillmap.review.saving import unsaved

    name, place = "corrections", root / params.data.corrections
    if not place.exists():
        remedy = f"`git checkout {params.data.corrections}`, or an empty file of this name"
        return Finding(name, False, f"{params.data.corrections} is not there, and DVC needs it", remedy)
    log, tree = root / paths.DECISIONS, root / paths.TREE
    if log.is_file() and tree.is_file():
        levels = LabelTree.from_table(read_table(tree)).levels
        if count := unsaved(read_decisions(log, levels), levels, place):
            found = f"{count:,} decisions in {paths.DECISIONS} are not yet in {params.data.corrections}"
            return Finding(name, False, found, "`tillmap review --save`, or stop the page that is open")
    return Finding(name, True, f"{params.data.corrections} is there")


def arms(root: Path, params: Params) -> Iterator[Finding]:
    """Whether the files are here that the arms that are on need to label new rows, and may be read."""
    from tillmap.serving.labeller import files_of, missing_files

    for arm in (arm for arm in params.run.on if arm in ARMS):
        needed = [file for path in files_of(arm, params) for file in (root / path, *(root / path).rglob("*"))]
        closed = [file for file in needed if file.exists() and not os.access(file, os.R_OK, effective_ids=True)]
        if closed:
            remedy = f"ask its owner for `chmod -R a+rX {closed[0].parent}`"
            yield Finding(f"arm {arm}", False, f"{closed[0]} is there, but you may not read it", remedy)
            continue
        missing = " ".join(str(path) for path in missing_files(arm, params, root))
        found = f"missing: {missing}" if missing else "all files are here"
        yield Finding(f"arm {arm}", not missing, found, f"`dvc repro` makes them, `dvc pull {missing}` fetches them")
