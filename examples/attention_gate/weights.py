# SPDX-License-Identifier: Apache-2.0
"""Gates on disk: a safetensors file (README.md has the table of names and metadata)."""

import json

import torch
from safetensors import safe_open
from safetensors.torch import save_file

FORMAT = "kvevict.attention_gate.1"
PARTS = {"q": "q", "k": "k", "v": "v", "o": "o", "bias": "bias"}


def fnv1a(data):
    """64-bit FNV-1a of bytes, in hexadecimal."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return f"{value:016x}"


def save(path, model, gates, o, **facts):
    metadata = {
        "format": FORMAT,
        "gate_heads": o.gate_heads,
        "gate_dim": o.gate_dim,
        "tau": o.tau,
        "sinks": o.sinks,
        "causal": "true",
        "model": model.config["name"],
        "model_fingerprint": model.fingerprint,
        "target_keep": o.keep,
        "seed": o.seed,
        "training_tokens": facts.pop("tokens"),
        **facts,
    }
    tensors = {
        f"layers.{layer}.{part}": getattr(gate, part).detach().cpu().to(torch.bfloat16).contiguous()
        for layer, gate in enumerate(gates)
        for part in PARTS
    }
    save_file(tensors, path, {k: str(v) for k, v in metadata.items()})


def load(path, model, gates):
    """Fills `gates`; refuses a file for another model or of other sizes. Returns the metadata."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise ValueError(f"{path}: format is {metadata.get('format')!r}, expected {FORMAT!r}")
        if metadata["model_fingerprint"] != model.fingerprint:
            raise ValueError(f"{path}: made for {metadata['model']}, not for this model")
        for layer, gate in enumerate(gates):
            for part in PARTS:
                tensor, target = file.get_tensor(f"layers.{layer}.{part}"), getattr(gate, part)
                if tensor.shape != target.shape:
                    raise ValueError(
                        f"{path}: layers.{layer}.{part} has shape {tuple(tensor.shape)}, expected {tuple(target.shape)}"
                    )
                target.data.copy_(tensor)
    return metadata
