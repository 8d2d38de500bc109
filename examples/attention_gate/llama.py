# SPDX-License-Identifier: Apache-2.0
"""A frozen Llama in plain PyTorch, from the directory that prepare.py makes; the caller supplies the attention."""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from weights import fnv1a


class Llama:
    """One sequence at a time. `attend(layer, x, q, k, v)` sees the normalised input x (N,E) of the projections, rotated
    q (Hq,N,D) and k (H,N,D), and v (H,N,D); it returns (Hq,N,D)."""

    def __init__(self, directory, device="cpu", products=torch.float32):
        self.config = json.loads((Path(directory) / "config.json").read_text())
        weights = load_file(Path(directory) / "model.safetensors")
        self.products = products
        self.dtype = torch.float64 if products == torch.float64 else torch.float32  # of everything between the products
        self.weights = {name: w.to(device, self.dtype if w.ndim == 1 else products) for name, w in weights.items()}
        self.device = torch.device(device)
        self.fingerprint = fnv1a(
            b"".join(
                weights[n].float().numpy().tobytes()
                for n in ("model.layers.0.input_layernorm.weight", "model.norm.weight")
            )
        )
        c = self.config
        pairs = torch.arange(c["head_dim"] // 2, dtype=torch.float64)
        self.frequency = c["rope_base"] ** (-2 * pairs / c["head_dim"])
        if c["rope_factors"]:
            self.frequency = self.frequency / torch.tensor(c["rope_factors"], dtype=torch.float64)

    def linear(self, name, x):
        return F.linear(x.to(self.products), self.weights[name + ".weight"]).to(self.dtype)

    def norm(self, name, x):
        return (
            x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.config["rms_eps"]) * self.weights[name + ".weight"]
        )

    def rotate(self, x):  # (heads,N,D), half-split
        angle = torch.arange(x.shape[1], dtype=torch.float64)[:, None] * self.frequency
        cos, sin = angle.cos().to(x), angle.sin().to(x)
        low, high = x.chunk(2, -1)
        return torch.cat((low * cos - high * sin, high * cos + low * sin), -1)

    def hidden(self, ids, attend):
        """Token ids (N) -> normalised last hidden states (N,E)."""
        c = self.config
        split = lambda x, heads: x.view(len(ids), heads, c["head_dim"]).transpose(0, 1)
        h = self.weights["model.embed_tokens.weight"][ids.to(self.device)].to(self.dtype)
        for layer in range(c["layers"]):
            at = f"model.layers.{layer}."
            x = self.norm(at + "input_layernorm", h)
            q, k, v = (
                split(self.linear(f"{at}self_attn.{n}_proj", x), heads)
                for n, heads in (("q", c["heads"]), ("k", c["kv_heads"]), ("v", c["kv_heads"]))
            )
            out = attend(layer, x, self.rotate(q), self.rotate(k), v)
            h = h + self.linear(at + "self_attn.o_proj", out.transpose(0, 1).reshape(len(ids), -1))
            x = self.norm(at + "post_attention_layernorm", h)
            x = F.silu(self.linear(at + "mlp.gate_proj", x)) * self.linear(at + "mlp.up_proj", x)
            h = h + self.linear(at + "mlp.down_proj", x)
        return self.norm("model.norm", h)

    def logits(self, hidden):
        return self.linear("model.embed_tokens" if self.config["tied"] else "lm_head", hidden)


def full_attention(layer, x, q, k, v):
    group = len(q) // len(k)
    return F.scaled_dot_product_attention(
        q[None], k.repeat_interleave(group, 0)[None], v.repeat_interleave(group, 0)[None], is_causal=True
    )[0]
