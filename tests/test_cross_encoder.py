"""Neighbours reordered by a cross-encoder: a tiny one of random weights, made here."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from tillmap.core.errors import ModelError
from tillmap.retrieval.cross_encoder import CrossScorer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "green", "tea", "leafy", "creme", "egg", "hopper", "bar", "mint"]
ROWS = pd.DataFrame({"id": [3, 5, 9], "description": ["Leafy green tea", "hopper creme egg", "HOPPER bar"]})
QUERIES = pd.DataFrame({"split": "test", "id": [8, 7], "description": ["hopper egg", "mint tea"]})
NEAR = pd.DataFrame(
    {"split": "test", "id": [8, 8, 8, 7, 7], "rank": [0, 1, 2, 0, 1], "neighbour": [5, 9, 3, 3, 5], "score": 1.0}
)


def make_model(folder, labels=1):
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    torch.manual_seed(1)
    folder.mkdir()
    BertTokenizerFast(vocab={word: place for place, word in enumerate(WORDS)}).save_pretrained(folder)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = BertConfig(
        vocab_size=len(WORDS), max_position_embeddings=32, num_labels=labels, initializer_range=1.0, **size
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("cross") / "model")


def test_neighbours_are_sorted_by_the_scores_of_their_pairs(model):
    scorer = CrossScorer(model, device="cpu")
    found = scorer.reorder(NEAR, ROWS, QUERIES)
    assert found.groupby("id", sort=False)["neighbour"].apply(sorted).to_dict() == {8: [3, 5, 9], 7: [3, 5]}
    assert found["id"].tolist() == NEAR["id"].tolist() and found["rank"].tolist() == NEAR["rank"].tolist()
    text = ROWS.set_index("id")["description"].str.lower()
    alone = [
        float(scorer.model.predict([(QUERIES["description"][query], text[near])])[0])
        for query, near in zip(found["id"].map({8: 0, 7: 1}), found["neighbour"], strict=True)
    ]
    assert found["score"].to_numpy() == pytest.approx(alone, abs=1e-4)
    assert (np.diff(found["score"][:3]) <= 0).all() and found["score"].nunique() > 2
    pd.testing.assert_frame_equal(CrossScorer(model, batch_size=1, device="cpu").reorder(NEAR, ROWS, QUERIES), found)
    assert scorer.reorder(NEAR.head(0), ROWS, QUERIES).empty


def test_models_that_do_not_fit_are_refused(model, tmp_path):
    with pytest.raises(ModelError, match="gives 3 scores for a pair, expected 1"):
        CrossScorer(make_model(tmp_path / "three", labels=3), device="cpu").reorder(NEAR, ROWS, QUERIES)
    damaged = shutil.copytree(model, tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="not a cross-encoder with safetensors weights"):
        CrossScorer(damaged, device="cpu").reorder(NEAR, ROWS, QUERIES)
    weights = load_file(model / "model.safetensors")
    (nan := shutil.copytree(model, tmp_path / "nan")).joinpath("model.safetensors").unlink()
    save_file(
        weights | {"classifier.bias": np.array([np.nan], np.float32)}, nan / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(ModelError, match="it gives scores that are no numbers"):
        CrossScorer(nan, device="cpu").reorder(NEAR, ROWS, QUERIES)
    words = json.loads((model / "tokenizer.json").read_text())
    del words["model"]["vocab"]["[UNK]"]
    (wordless := shutil.copytree(model, tmp_path / "wordless")).joinpath("tokenizer.json").write_text(json.dumps(words))
    with pytest.raises(ModelError, match=r"not a cross-encoder .*\[UNK\]"):
        CrossScorer(wordless, device="cpu").reorder(NEAR, ROWS.assign(description="unheard of"), QUERIES)
    with pytest.raises(ModelError, match="no such folder"):
        CrossScorer("nowhere")
