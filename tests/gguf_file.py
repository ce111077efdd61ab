"""Writes checkpoints with a byte-level tokenizer as GGUF files, as llama.cpp's converter would."""

import json

import gguf
from safetensors.numpy import load_file


def write_gguf(base, file, weights="F16", *, split="smollm", architecture="llama", changes=(), extra=()):
    """Write the checkpoint in `base` with weights of a GGML type.

    `changes` are header values by name; None leaves one out. `extra` are more tensors by name.
    """
    config = json.loads((base / "config.json").read_text())
    heads, kv_heads, hidden = (config[name] for name in ("num_attention_heads", "num_key_value_heads", "hidden_size"))
    made = json.loads((base / "tokenizer.json").read_text())
    special = {token["content"]: token["id"] for token in made["added_tokens"]}
    vocabulary = made["model"]["vocab"] | special
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    writer = gguf.GGUFWriter(file, architecture)
    header = {
        f"{architecture}.block_count": config["num_hidden_layers"],
        f"{architecture}.context_length": config["max_position_embeddings"],
        f"{architecture}.embedding_length": hidden,
        f"{architecture}.feed_forward_length": config["intermediate_size"],
        f"{architecture}.attention.head_count": heads,
        f"{architecture}.attention.head_count_kv": kv_heads,
        f"{architecture}.attention.key_length": config.get("head_dim") or hidden // heads,
        f"{architecture}.rope.dimension_count": config.get("head_dim") or hidden // heads,
        f"{architecture}.rope.freq_base": config["rope_parameters"]["rope_theta"],
        f"{architecture}.attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        f"{architecture}.vocab_size": len(tokens),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": split,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token in special else 1 for token in tokens],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in made["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.chat_template": (base / "chat_template.jinja").read_text(),
    } | dict(changes)
    for name, value in header.items():
        if value is not None:
            add = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32, list: writer.add_array}
            add[type(value)](name, value)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.upper()], config["num_hidden_layers"])
    kind = gguf.GGMLQuantizationType[weights]
    for name, tensor in (load_file(base / "model.safetensors") | dict(extra)).items():
        named = f"{names.get_name(name.removesuffix('.weight'))}.weight" if name.startswith(("model.", "lm_")) else name
        if architecture == "llama" and (".q_proj" in name or ".k_proj" in name):
            parts = heads if ".q_proj" in name else kv_heads
            pairs = tensor.reshape(parts, 2, -1, hidden).swapaxes(1, 2)
            tensor = pairs.reshape(tensor.shape)  # noqa: PLW2901
        if tensor.ndim == 1:
            writer.add_tensor(named, tensor.astype("float32"))
        else:
            writer.add_tensor(named, gguf.quantize(tensor.astype("float32"), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file
