"""The kinds of files that models of other people's have: vectors, tokenizers, checkpoints, GGUF files, adapters."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from kind import BY_ENDING, IN, Files, Kind, refusing

from tillmap.core.completions import Question
from tillmap.llm.checkpoints import fetch_checkpoint
from tillmap.llm.engines.loading import load_engine
from tillmap.llm.interface.generation import Generation, Machine
from tillmap.retrieval.cross_encoder import CrossScorer
from tillmap.retrieval.dense import DenseRetriever
from tillmap.retrieval.embedding import Embedder

BASE, ADAPTER, PAIRS = (f"{IN}/{name}" for name in ("base", "adapter", "pairs"))
WORDS = [f"{word}{number}" for word in ("tea", "oat milk", "crème") for number in range(20)]


class _Vectors:
    """An embedder without a model: each text has a vector of its own."""

    dimension = 8

    def encode(self, texts: list[str]) -> np.ndarray:
        drawn = [np.random.default_rng(list(text.encode())).normal(size=self.dimension) for text in texts]
        vectors = np.array(drawn, np.float32).reshape(len(texts), self.dimension)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _dense() -> Files:
    files = {}
    for name, exact in (("exact", 100), ("codes", 16)):
        DenseRetriever.build(range(len(WORDS)), WORDS, _Vectors(), exact).save(Path(IN, name))  # type: ignore[arg-type]
        files |= _files(Path(IN, name))
    return files


def _read_dense() -> None:
    for name in ("exact", "codes"):
        index = DenseRetriever.load(Path(IN, name), _Vectors())  # type: ignore[arg-type]
        index.search(["tea1", "", "oil"], 1)
        index.search(["tea2"], 5, range(20))


def _files(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@cache
def _base() -> TemporaryDirectory[str]:
    """The smallest checkpoint there can be: Llama with a vocabulary of bytes."""
    import torch
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, "te", "tea", "mi"]
    made = Tokenizer(
        models.BPE({token: place for place, token in enumerate(tokens)}, [("t", "e"), ("te", "a"), ("m", "i")])
    )
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.add_tokens([AddedToken(name, special=True) for name in ("<s>", "</s>")])
    template = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", chat_template=template
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=512, bos_token_id=len(tokens), eos_token_id=len(tokens) + 1,
        )
    )  # fmt: skip
    folder = TemporaryDirectory(prefix="fuzz-base-")
    tokenizer.save_pretrained(folder.name)
    model.save_pretrained(folder.name)
    return folder


def _copied() -> Files:
    shutil.copytree(_base().name, BASE, dirs_exist_ok=True)
    return _files(Path(BASE))


def _ending(files: Files, *endings: str) -> Files:
    return {name: content for name, content in files.items() if name.endswith(endings)}


def _only(*endings: str) -> Callable[[], Files]:
    """The whole checkpoint is there, and these files of it are damaged."""
    return lambda: _ending(_copied(), *endings)


def _fetch(source: str) -> Path:
    shutil.rmtree("fetched", ignore_errors=True)
    fetch_checkpoint(source, None, _made(Path("fetched")))
    return Path("fetched")


MACHINE = Machine("float32", 128, 2, kv_cache_gib=0.01, eager=True)


def _answer(base: Path, machine: Machine = MACHINE, adapter: Path | None = None) -> None:
    engine = load_engine("transformers", base, machine, Generation(2, temperature=0.0, seed=0), adapter)
    engine.answer([Question("test", 1, [{"role": "user", "content": "tea कि"}])])
    engine.close()


def _adapter() -> Files:
    """A LoRA of the base; all of it is loaded, apart from the base and merged into it."""
    from tiny import make_adapter

    _copied()
    make_adapter(Path(BASE), _made(Path(ADAPTER)), rank=2)
    return _ending(_files(Path(ADAPTER)), ".json", ".safetensors")


def _ask_adapted() -> None:
    for lora in ("serve", "merge"):
        with refusing():
            _answer(Path(BASE), replace(MACHINE, lora=lora), Path(ADAPTER))  # type: ignore[arg-type]


def _gguf() -> Files:
    from gguf_file import write_gguf

    write_gguf(Path(_base().name), _made(Path(IN)) / "model.gguf", "F32")
    return {f"{IN}/model.gguf": Path(IN, "model.gguf").read_bytes()}


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _bert(name: str, kind: Any) -> Path:
    """A model of one small layer, with a vocabulary of letters."""
    from transformers import BertConfig, BertTokenizerFast

    folder = _made(Path(name))
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdeimot"]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    kind(
        BertConfig(
            vocab_size=len(words), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
            max_position_embeddings=32, num_labels=1,
        )
    ).save_pretrained(folder)  # fmt: skip
    return folder


def _pairs() -> Files:
    """A cross-encoder, which reorders neighbours."""
    from transformers import BertForSequenceClassification

    return _files(_bert(PAIRS, BertForSequenceClassification))


def _reorder() -> None:
    rows = pd.DataFrame({"id": [3, 5], "description": ["tea", "oat milk"]})
    asked = pd.DataFrame({"split": "test", "id": [1, 2], "description": ["iced tea", ""]})
    near = pd.DataFrame(
        {"split": "test", "id": [1, 1, 2], "rank": [0, 1, 0], "neighbour": [3, 5, 5], "score": np.float32(1)}
    )
    found = CrossScorer(PAIRS, device="cpu").reorder(near, rows, asked)
    assert np.isfinite(found["score"]).all() and sorted(found["neighbour"]) == [3, 5, 5]


def _sentences() -> Files:
    """A sentence-transformers model of one small layer."""
    from transformers import BertModel

    folder = _bert(BASE, BertModel)
    kinds = ("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")
    modules = [
        {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for place, (kind, path) in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    _made(folder / "1_Pooling").joinpath("config.json").write_text(
        json.dumps({"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True})
    )
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 32, "do_lower_case": False}))
    return _files(folder)


def _embed() -> None:
    embedder = Embedder(BASE, device="cpu")
    vectors = embedder.encode(["tea", "", "कि"])
    assert vectors.shape == (3, embedder.dimension) and np.isfinite(vectors).all()


ENDINGS = {**BY_ENDING, "tokenizer.json": "json", ".jinja": "text"}

MODEL_KINDS: dict[str, Kind] = {
    "dense": Kind(_dense, _read_dense, BY_ENDING),
    "tokenizer": Kind(_only("tokenizer.json", "tokenizer_config.json", ".jinja"), lambda: _fetch(BASE), ENDINGS),
    "base_model": Kind(_only("config.json", ".safetensors"), lambda: _answer(_fetch(BASE)), ENDINGS),
    "gguf": Kind(_gguf, lambda: _fetch(f"{IN}/model.gguf")),
    "adapter": Kind(_adapter, _ask_adapted, ENDINGS),
    "sentences": Kind(_sentences, _embed, ENDINGS),
    "cross_encoder": Kind(_pairs, _reorder, ENDINGS),
}
