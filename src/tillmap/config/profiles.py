"""Profiles: files with values for params.yaml, one for each kind of machine."""

from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tillmap.config.params import Params, check_params
from tillmap.core.errors import ParamsError
from tillmap.core.files import write_text

_NULL = "tag:yaml.org,2002:null"


def apply_profiles(
    names: Sequence[str], params: Path, folder: Path, schema: type[Params]
) -> dict[str, tuple[Any, Any]]:
    """Write the values of profiles into params.yaml. Comments are kept.

    Args:
        names: the profiles, `folder`/NAME.yaml. A later one overrides an earlier one.
        params: the path of params.yaml.
        folder: the folder of the profiles.
        schema: checks the result before it is written.

    Returns the changed values, as {key: (old, new)}. Raises ParamsError if a profile is missing, is not valid YAML, or
    sets an unknown or invalid parameter. Then params.yaml is not changed.
    """
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 1000  # do not wrap lines that end in a comment
    yaml.representer.add_representer(type(None), lambda plain, _: plain.represent_scalar(_NULL, "null"))
    tree = yaml.load(params.read_text(encoding="utf-8"))
    before: dict[str, Any] = {}
    for name in names:
        for block, values in _read(name, folder).items():
            if not isinstance(values, Mapping) or block not in tree:
                raise ParamsError(
                    f"{folder / name}.yaml: {block} is not a block of {params}; expected one of {', '.join(tree)}"
                )
            for key, value in values.items():
                before.setdefault(f"{block}.{key}", tree[block].get(key))
                tree[block][key] = value
    text = StringIO()
    yaml.dump(tree, text)
    check_params(text.getvalue(), params, schema)
    write_text(text.getvalue(), params)
    after = {name: tree[name.partition(".")[0]][name.partition(".")[2]] for name in before}
    return {name: (old, after[name]) for name, old in before.items() if old != after[name]}


def _read(name: str, folder: Path) -> dict[str, Any]:
    path = folder / f"{name}.yaml"
    try:
        profile = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml"))) or "none"
        raise ParamsError(f"{path}: profile not found; available profiles: {known}") from None
    except YAMLError as error:
        raise ParamsError(f"{path}: not valid YAML; check quotes and indentation") from error
    if not isinstance(profile, dict):
        raise ParamsError(f"{path}: expected blocks of params such as `rag:`; see the other profiles for examples")
    return profile
