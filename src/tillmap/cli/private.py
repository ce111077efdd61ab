"""`tillmap private`: keep a licensed catalogue's rows from every remote."""

from pathlib import Path

import typer
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from tillmap.config import paths
from tillmap.core.errors import ParamsError

# Outputs that hold a catalogue's descriptions. Models, completions and predictions name rows by their ids.
HOLD_ROWS = tuple(
    str(path) for path in (paths.RAW, paths.SPLIT, paths.INDEX, paths.PROMPTS, paths.CASCADE, paths.REVIEW)
)


def private() -> None:
    """Keep a licensed catalogue's rows from every remote: marks the outputs that hold descriptions in dvc.yaml."""
    for path in keep_private(Path("dvc.yaml")):
        typer.echo(f"{path}: push: false")
    typer.echo("Rows stay on this machine; models, completions and predictions still travel. Commit dvc.yaml.")


def keep_private(dvcfile: Path) -> list[str]:
    """Mark every output that holds descriptions `push: false` in dvc.yaml; give those that were not marked before.

    DVC takes no parameter there, so the file itself is changed. Raises ParamsError where it has no such output.
    """
    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    pipeline = yaml.load(dvcfile.read_text(encoding="utf-8"))
    changed, found = [], 0
    for stage in pipeline["stages"].values():
        outs = stage.get("do", stage).get("outs", [])
        for place, out in enumerate(outs):
            path, options = next(iter(out.items())) if isinstance(out, dict) else (out, {})
            if not path.startswith(HOLD_ROWS):
                continue
            found += 1
            if options.get("push", True):
                changed.append(str(path))
                outs[place] = CommentedMap({path: CommentedMap(options | {"push": False})})
    if not found:
        raise ParamsError(f"{dvcfile}: none of {', '.join(HOLD_ROWS)} is an output; run this from the project's root")
    with dvcfile.open("w", encoding="utf-8") as file:
        yaml.dump(pipeline, file)
    return changed
