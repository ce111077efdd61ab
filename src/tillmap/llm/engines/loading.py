"""Loads the engine a parameter names, once the machine is known to hold its model."""

from pathlib import Path
from tempfile import TemporaryDirectory

from tillmap.core.errors import ParamsError, ResourceError
from tillmap.llm.checkpoints import check_adapter
from tillmap.llm.interface.generation import Engine, Generation, Machine
from tillmap.llm.merging import merge_adapter


def load_engine(
    name: str, model: Path, machine: Machine, generation: Generation, adapter: Path | None = None
) -> Engine:
    """The engine of that name with its model in memory, and the LoRA adapter, through which every question then goes.

    Raises ModelError, ParamsError or ResourceError.
    """
    if adapter is not None:
        check_adapter(adapter)
        if machine.lora == "merge":
            with TemporaryDirectory() as merged:  # weights are in memory once an engine is there
                merge_adapter(model, adapter, Path(merged), "fp32")
                return load_engine(name, Path(merged), machine, generation)
    require_memory(model, machine)
    if name == "vllm":
        from tillmap.llm.engines.vllm import VllmEngine

        return VllmEngine(model, machine, generation, adapter)
    if name == "transformers":
        from tillmap.llm.engines.transformers import TransformersEngine

        return TransformersEngine(model, machine, generation, adapter)
    raise ParamsError(f"there is no engine {name!r}; expected vllm or transformers")


def require_memory(model: Path, machine: Machine) -> None:
    """Raise ResourceError where a CPU machine cannot hold the weights and the key-value cache.

    Weights are counted by the size of their files; a device's own memory is the engine's to check.
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
            f"{model}: the engine needs {needed:.1f} GiB (weights and a cache of {machine.kv_cache_gib or 0:.1f}), "
            f"but {free:.1f} GiB are free; lower engine.kv_cache_gib, choose a smaller base, or close other programs"
        )
