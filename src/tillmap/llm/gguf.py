"""GGUF files as checkpoint folders: the weights unpacked to float32, the tokenizer from the file's own vocabulary."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from tillmap.core.errors import ModelError, ResourceError, first_line, model_errors
from tillmap.llm.chat import load_tokenizer

_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf", re.IGNORECASE)
_CONTROL, _USER_DEFINED = 3, 4  # `token_type` of tokens that are found in a text before it is split
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
_BESIDE = "put the model's tokenizer.json and tokenizer_config.json beside the file, which are then used"
# How a text is split before its parts are made of tokens, by `tokenizer.ggml.pre`: as in the tokenizer.json of GPT-2,
# Llama 3 and Qwen 2 and 3. SmolLM splits as GPT-2, and each digit from its neighbours.
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
_SPLITS = {"gpt-2": _GPT2, "smollm": _GPT2, "llama-bpe": _LLAMA3, "qwen2": _LLAMA3.replace("{1,3}", "")}
_LLAMA3_ROPE = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def is_gguf(source: Path) -> bool:
    """Whether a path is named as a GGUF file."""
    return source.suffix.lower() == ".gguf"


def find_gguf(source: Path) -> Path | None:
    """The GGUF file that a source means: itself, or the only one in a folder without safetensors; else None.

    Raises ModelError if a folder has several, or the file is one part of a model.
    """
    if source.is_dir() or not is_gguf(source):
        found = [] if any(source.glob("*.safetensors")) else sorted(filter(is_gguf, source.glob("*")))
        if not found:
            return None
        if len(found) > 1 and not _PART.search(found[0].name):
            names = ", ".join(file.name for file in found)
            raise ModelError(f"model folder {source} has several GGUF files ({names}); name one of them as the base")
        [source, *_] = found
    if _PART.search(source.name):
        raise ModelError(f"{source} is one part of a model; join the parts first: `llama-gguf-split --merge`")
    return source


def convert_gguf(file: Path, folder: Path) -> None:
    """Write a GGUF file as a checkpoint: float32 safetensors, config and tokenizer.

    The weights are those of the file exactly. They take 4 bytes each, in memory and on the disk.

    Raises ModelError if the file is damaged, or its architecture, tokenizer or rope scaling is not one that can be
    read, and ResourceError if memory is too small.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
    from transformers.utils.quantization_config import GgufConfig

    with _read_once(), model_errors(f"{file}: not a model for text that can be read", "fetch it again"):
        reader = _read(file)
        _require_memory(file, reader)
        tokenizer = gguf_tokenizer(file)
        kind = _field(reader, "general.architecture")
        with model_errors(f"{file}: transformers cannot read this model of kind {kind!r}", "fetch it again"):
            config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
            if width := _field(reader, f"{kind}.attention.key_length"):
                config.head_dim = width
            model, found = AutoModelForCausalLM.from_pretrained(
                file.parent, config=config, gguf_file=file.name, quantization_config=GgufConfig(dequantize=True),
                dtype=torch.float32, output_loading_info=True,
            )  # fmt: skip
        lacking = sorted(found["missing_keys"]) + sorted(map(str, found["mismatched_keys"]))
        if lacking:
            raise ModelError(
                f"{file} lacks {len(lacking)} of the model's weights, the first {lacking[0]}; fetch it again"
            )
        _set_rope(model.config, file, reader)
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    for name, value in ids.items():
        setattr(model.config, name, value)
    model.generation_config = GenerationConfig(**ids)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def gguf_tokenizer(file: Path) -> Any:
    """The tokenizer of a GGUF file: that of the files beside it, or one made from the file's vocabulary.

    Raises ModelError if the vocabulary is not of a kind that can be read.
    """
    reader = _read(file)
    if all((file.parent / name).is_file() for name in _TOKENIZER_FILES):
        tokenizer = load_tokenizer(file.parent)
        tokenizer.chat_template = tokenizer.chat_template or _field(reader, "tokenizer.chat_template")
        return tokenizer
    kind, split = _field(reader, "tokenizer.ggml.model"), _field(reader, "tokenizer.ggml.pre")
    if kind != "gpt2" or split not in _SPLITS:
        raise ModelError(f"{file}: its tokenizer ({kind}, {split}) is not one that tillmap can read; {_BESIDE}")
    _require(reader, file, "tokenizer.ggml.merges", "tokenizer.ggml.token_type")
    return _byte_level(reader, split)


def _byte_level(reader: Any, split: str) -> Any:
    """The tokenizer of a model whose tokens are bytes that are merged by a list."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    tokens, merges = (_field(reader, f"tokenizer.ggml.{name}") for name in ("tokens", "merges"))
    made = Tokenizer(
        BPE(
            {token: place for place, token in enumerate(tokens)},
            [tuple(merge.split(" ")) for merge in merges],
            ignore_merges=split == "llama-bpe",
        )
    )
    if split == "qwen2":
        made.normalizer = normalizers.NFC()
    digits = [pre_tokenizers.Digits(individual_digits=True)] if split == "smollm" else []
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *digits,
            pre_tokenizers.Split(Regex(_SPLITS[split]), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    for token, kind in zip(tokens, _field(reader, "tokenizer.ggml.token_type"), strict=True):
        if kind in (_CONTROL, _USER_DEFINED):
            made.add_tokens([AddedToken(token, special=kind == _CONTROL, normalized=False)])
    numbers = {name: _field(reader, f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos", "padding", "unknown")}
    bos, eos, pad, unknown = (None if number is None else tokens[number] for number in numbers.values())
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token=bos,
        eos_token=eos,
        pad_token=pad or eos,
        unk_token=unknown,
        clean_up_tokenization_spaces=False,
        chat_template=_field(reader, "tokenizer.chat_template"),
    )


def _read(file: Path) -> Any:
    """The header of a GGUF file. Raises ModelError if it is none, or damaged."""
    import gguf

    try:
        reader = gguf.GGUFReader(str(file))
    except FileNotFoundError:
        raise ModelError(f"model file {file} not found; name a .gguf file that is there") from None
    except (ValueError, IndexError, KeyError, OverflowError, MemoryError) as error:
        raise ModelError(f"{file}: not a GGUF file, or a damaged one ({first_line(error)}); fetch it again") from None
    _require(reader, file, "general.architecture", "tokenizer.ggml.tokens", "tokenizer.ggml.eos_token_id")
    return reader


def _require(reader: Any, file: Path, *names: str) -> None:
    """Raise ModelError if the header lacks one of these values."""
    for name in names:
        if reader.get_field(name) is None:
            raise ModelError(f"{file} lacks {name}; expected a model for text, with its tokenizer")


def _field(reader: Any, name: str) -> Any:
    """A value of the header, or None."""
    field = reader.get_field(name)
    return None if field is None else field.contents()


def _require_memory(file: Path, reader: Any) -> None:
    import psutil

    needed = 4 * sum(int(tensor.n_elements) for tensor in reader.tensors) / 2**30
    free = psutil.virtual_memory().available / 2**30
    if needed > free:
        raise ResourceError(
            f"{file}: the unpacked weights take {needed:.1f} GiB of memory, but {free:.1f} GiB are free; "
            "choose a smaller model, or close other programs"
        )


def _set_rope(config: Any, file: Path, reader: Any) -> None:
    """Set the rope scaling of Llama 3.1 and later, which transformers does not read.

    A file has no values of it, but what they come to: a divisor for each frequency. Raises ModelError if it has those
    of another scaling.
    """
    kind = _field(reader, "general.architecture")
    scaling = _field(reader, f"{kind}.rope.scaling.type")
    found = {tensor.name: tensor.data for tensor in reader.tensors if tensor.name.startswith("rope_")}
    if not found and scaling in (None, "none"):
        return
    divisors = found.pop("rope_freqs.weight", None)
    if kind == "llama" and divisors is not None and not found:
        theta, factor = config.rope_parameters["rope_theta"], float(divisors.max())
        if np.allclose(divisors, _llama3_divisors(theta, 2 * len(divisors), factor), rtol=1e-3):
            config.rope_parameters = {"rope_type": "llama3", "rope_theta": theta, "factor": factor, **_LLAMA3_ROPE}
            return
    raise ModelError(f"{file}: its rope scaling is not one that tillmap can read; use the model's safetensors instead")


def _llama3_divisors(theta: float, width: int, factor: float) -> np.ndarray:
    """What Llama 3.1 divides each frequency by: long waves by `factor`, short ones by 1, with a ramp between them."""
    waves = 2 * np.pi * theta ** (np.arange(0, width, 2) / width)
    low, high, context = _LLAMA3_ROPE.values()
    ramp = np.clip((context / waves - low) / (high - low), 0, 1)
    divisors: np.ndarray = 1 / ((1 - ramp) / factor + ramp)
    return divisors


@contextmanager
def _read_once() -> Iterator[None]:
    """Let a GGUF file's header be read once, and the table of tensor names be made once.

    By itself transformers reads the header for the config and the weights, and makes the table again for each of 400
    modules: most of the time that the conversion takes.
    """
    import gguf

    once: dict[str, Any] = {name: cache(getattr(gguf, name)) for name in ("GGUFReader", "get_tensor_name_map")}
    with patch.multiple(gguf, **once):
        yield
