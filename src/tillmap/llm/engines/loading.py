"""Loads an engine by its name, after checking that the machine has enough memory for the model."""

import logging
from dataclasses import replace
from pathlib import Path

from tillmap.core.errors import ParamsError, ResourceError
from tillmap.core.machine import usable_dtype, use_threads
from tillmap.core.run_state import scratch
from tillmap.llm.checkpoints import check_adapter
from tillmap.llm.interface.generation import Generation, LoadedEngine, Machine
from tillmap.llm.merging import merge_adapter

logger = logging.getLogger(__name__)


def load_engine(
    name: str, model: Path, machine: Machine, generation: Generation, adapter: Path | None = None
) -> LoadedEngine:
    """Load an engine, `vllm` or `transformers`, with its model and an optional LoRA adapter, used for all questions.

    Raises ParamsError if there is no such engine, ModelError if the model or adapter is invalid, and ResourceError if
    the machine lacks memory.
    """
    machine = replace(machine, dtype=usable_dtype(machine.dtype))
    if adapter is not None:
        check_adapter(adapter)
        if machine.lora == "merge":
            with scratch() as merged:  # only needed until the engine has loaded the weights
                merge_adapter(model, adapter, merged, machine.dtype)
                return load_engine(name, merged, machine, generation)
    require_memory(model, machine)
    logger.info("%s: %d processor threads", name, use_threads(machine.threads))
    if name == "vllm":
        from tillmap.llm.engines.vllm import VllmEngine

        return VllmEngine(model, machine, generation, adapter)
    if name == "transformers":
        from tillmap.llm.engines.transformers import TransformersEngine

        return TransformersEngine(model, machine, generation, adapter)
    raise ParamsError(f"there is no engine {name!r}; expected vllm or transformers")


def require_memory(model: Path, machine: Machine) -> None:
    """Raise ResourceError if the free memory is too small for the weights and the key-value cache.

    The size of the weights is that of their files. On a GPU the engine checks the memory itself.
    """
    import psutil
    import torch

    if torch.cuda.is_available():
        return
    weights = sum(file.stat().st_size for file in model.glob("*.safetensors"))
    needed = weights / 2**30 + (machine.kv_cache_gib or 0)
    free = psutil.virtual_memory().available / 2**30
    if needed > free:
        raise ResourceError(
            f"{model}: the engine needs {needed:.1f} GiB (weights and a cache of {machine.kv_cache_gib or 0:.1f} GiB), "
            f"but {free:.1f} GiB are free; lower engine.kv_cache_gib, choose a smaller base, or close other programs"
        )
