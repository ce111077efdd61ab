"""The arms: ways to label a row. Every subclass of `Arm` in a module of this package is registered in `ARMS`."""

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from functools import cache

from tillmap.arms.base import Arm
from tillmap.config.params import Params, make_schema


def _find() -> dict[str, Arm]:
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    classes = [Arm]
    for known in classes:  # grows while it is walked: an arm may be a subclass of another's base
        classes += known.__subclasses__()
    named = sorted((known for known in classes if hasattr(known, "name")), key=lambda known: known.name)
    return {known.name: known() for known in named}  # type: ignore[abstract]


ARMS: Mapping[str, Arm] = _find()


def asks_model(arm: str, voters: Sequence[str] = ()) -> bool:
    """Whether a language model gives some of an arm's answers, so that a pilot limits its test rows.

    `voters` are the arms that vote, if `arm` is the vote.
    """
    if arm in ARMS:
        return not ARMS[arm].free
    return arm == "cascade" or any(not ARMS[voter].free for voter in voters)


def proposer(on: Sequence[str]) -> str | None:
    """The best free arm of those that are on, see `Arm.proposes`; None if there is none."""
    able = [name for name in on if name in ARMS and ARMS[name].proposes]
    return max(able, key=lambda name: ARMS[name].proposes, default=None)


@cache
def schema() -> type[Params]:
    """The schema of params.yaml, with a switch and a block for each arm."""
    asked = [name for name, arm in ARMS.items() if not arm.free]
    return make_schema({name: arm.Settings for name, arm in ARMS.items()}, asked)
