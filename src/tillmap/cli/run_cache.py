"""DVC's run cache, which remembers what each stage gave for which inputs: what a kill has left broken in it.

DVC makes a folder for the entries of a stage, writes an entry, and only then puts the outputs that it names into the
cache. A kill in between leaves a folder without an entry, in which DVC then fails ("join() argument must be str"), or
an entry whose outputs are not there. DVC looks at the newest entry only, so that one hides older ones that are whole.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tillmap.core.errors import TillmapError
from tillmap.core.files import read_json

if TYPE_CHECKING:
    from dvc.repo import Repo


def broken_entries(repo: "Repo") -> list[Path]:
    """The folders without an entry, and the entries that cannot be read or whose outputs are not all in the cache."""
    folders = [folder for folder in Path(repo.stage_cache.cache_dir).glob("*/*") if folder.is_dir()]
    found = []
    for folder in folders:
        entries = sorted(folder.iterdir())
        broken = [entry for entry in entries if not _is_whole(entry, repo)]
        found += broken if entries else [folder]
    return found


def remove_entries(entries: list[Path]) -> None:
    """Remove what `broken_entries` found, and the folders that are empty then. The stages run again."""
    for entry in entries:
        folder = entry if entry.is_dir() else entry.parent
        if folder != entry:
            entry.unlink()
        if not any(folder.iterdir()):
            folder.rmdir()


def _is_whole(entry: Path, repo: "Repo") -> bool:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        record = YAML(typ="safe", pure=True).load(entry)
        return all(path.is_file() for out in record["outs"] for path in _objects(out, repo))
    except (YAMLError, LookupError, TypeError, ValueError, AttributeError, OSError, RecursionError, TillmapError):
        return False


def _objects(out: dict[str, Any], repo: "Repo") -> Iterator[Path]:
    """The files in the cache of an output: its own; of a folder, the list of its files, and these."""
    cache = repo.cache.local if out.get("hash") == "md5" else repo.cache.legacy
    own = Path(cache.oid_to_path(out["md5"]))
    yield own
    if own.suffix == ".dir" and own.is_file():
        for file in read_json(own):
            yield Path(cache.oid_to_path(file["md5"]))
