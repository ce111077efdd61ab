"""`tillmap private`: never push the rows of a licensed catalogue."""

from io import StringIO
from pathlib import Path
from typing import Any

import typer
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from tillmap.config import paths
from tillmap.core.errors import ParamsError, first_line
from tillmap.core.files import write_text

# Outputs that contain descriptions. Models, completions and predictions have only the ids of rows.
HOLD_ROWS = tuple(
    str(path)
    for path in (paths.RAW, paths.SPLIT, paths.INDEX, paths.PROMPTS, paths.CASCADE, paths.REVIEW, paths.REPORT)
)


def private() -> None:
    """Never push the rows of a licensed catalogue.

    Sets `push: false` in dvc.yaml for all outputs that contain descriptions.
    """
    for path in keep_private(Path("dvc.yaml")):
        typer.echo(f"{path}: push: false")
    typer.echo(
        "`data.corrections` has lines, too, and git pushes it. Let it name a file that git ignores: docs/review.md"
    )
    typer.echo("Rows stay on this machine. Models, completions and predictions are still pushed. Commit dvc.yaml.")


def keep_private(dvcfile: Path) -> list[str]:
    """Set `push: false` for every output with descriptions. Returns the outputs that did not have it before.

    DVC does not allow a parameter for `push`, so dvc.yaml itself is edited. Raises ParamsError if it cannot be read or
    has no such output.
    """
    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    try:
        pipeline = yaml.load(dvcfile.read_text(encoding="utf-8"))
        changed, found = _switch_off(pipeline)
    except (YAMLError, OSError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ParamsError(
            f"{dvcfile}: not a pipeline ({first_line(error)}); run this from the project's root, or restore the file "
            f"with `git checkout {dvcfile}`"
        ) from None
    if not found:
        raise ParamsError(f"{dvcfile}: none of {', '.join(HOLD_ROWS)} is an output; run this from the project's root")
    text = StringIO()
    yaml.dump(pipeline, text)
    write_text(text.getvalue(), dvcfile)
    return changed


def _switch_off(pipeline: Any) -> tuple[list[str], int]:
    """The outputs that were changed, and how many have descriptions."""
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
    return changed, found
