"""Profiles: files with values for params.yaml, one for each kind of machine."""

from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from tillmap.config.params import NOT_YAML, Params, check_params
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
    values: dict[str, dict[str, Any]] = {}
    for name in names:
        for block, settings in _read(name, folder).items():
            if not isinstance(settings, Mapping):
                raise ParamsError(
                    f"{folder / name}.yaml: {block} is not a block of params; expected `{block}:` and values"
                )
            values.setdefault(block, {}).update(settings)
    return write_values(values, params, schema)


def write_values(
    values: Mapping[str, Mapping[str, Any]], params: Path, schema: type[Params]
) -> dict[str, tuple[Any, Any]]:
    """Write values into params.yaml, as {block: {key: value}}. Comments are kept.

    Returns the changed values, as {key: (old, new)}. Raises ParamsError if a key is unknown or a value invalid. Then
    params.yaml is not changed.
    """
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 1000  # do not wrap lines that end in a comment
    yaml.representer.add_representer(type(None), lambda plain, _: plain.represent_scalar(_NULL, "null"))
    tree = yaml.load(params.read_text(encoding="utf-8"))
    changed: dict[str, tuple[Any, Any]] = {}
    for block, settings in values.items():
        if block not in tree:
            raise ParamsError(f"{block} is not a block of {params}; expected one of {', '.join(tree)}")
        _update(tree[block], settings, block, changed)
    text = StringIO()
    yaml.dump(tree, text)
    check_params(text.getvalue(), params, schema)
    write_text(text.getvalue(), params)
    return changed


def _update(node: Any, values: Mapping[str, Any], where: str, changed: dict[str, tuple[Any, Any]]) -> None:
    for key, value in values.items():
        name, old = f"{where}.{key}", node.get(key)
        if value and isinstance(value, Mapping) and isinstance(old, Mapping):  # an empty one empties the old one
            _update(old, value, name, changed)
        elif key not in node or value != old:
            changed[name] = (old, value)
            node[key] = _in_one_line(value)


def _in_one_line(value: Any) -> Any:
    """A list as `[a, b]` and a mapping as `{a: 1}`, as params.yaml has them."""
    if not isinstance(value, list | Mapping):
        return value
    line = CommentedSeq(value) if isinstance(value, list) else CommentedMap(value)
    line.fa.set_flow_style()
    return line


def _read(name: str, folder: Path) -> dict[str, Any]:
    path = folder / f"{name}.yaml"
    try:
        # Pure: the compiled reader ends the process where a text is nested too deep.
        profile = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml"))) or "none"
        raise ParamsError(f"{path}: profile not found; available profiles: {known}") from None
    except NOT_YAML as error:
        raise ParamsError(f"{path}: not valid YAML; check quotes and indentation") from error
    if not isinstance(profile, dict):
        raise ParamsError(f"{path}: expected blocks of params such as `rag:`; see the other profiles for examples")
    return profile
