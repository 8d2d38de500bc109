#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes what PyTorch's gate says of random features, for the library's tests:
vectors.py > tests/unit/data/gate_torch.json

The schema is that of attention_gate.json: weights as (in,out), columns of Wq, Wk, Wv head-major, p as (H,N), in
float32.
"""

import json, sys

import torch

from gate import Gate

SEED, N, E, H, HEADS, DIM = 20261124, 70, 40, 3, 2, 12


def tensor(x):
    return {"shape": list(x.shape), "data": [round(v, 9) for v in x.detach().flatten().tolist()]}


if __name__ == "__main__":
    torch.manual_seed(SEED)
    gate = Gate(E, H, HEADS, DIM)
    x = torch.randn(N, E)
    with torch.no_grad():
        gate.q *= 3
        gate.bias.normal_()
        p = torch.sigmoid(gate(x))
    json.dump(
        {
            "note": f"examples/attention_gate/vectors.py, torch {torch.__version__}, seed {SEED}; weights as (in,out)",
            "gate_heads": HEADS,
            "gate_width": DIM,
            "X": tensor(x),
            "Wq": tensor(gate.q.T),
            "Wk": tensor(gate.k.T),
            "Wv": tensor(gate.v.T),
            "Wo": tensor(gate.o.T),
            "b": tensor(gate.bias),
            "p_causal": tensor(p),
        },
        sys.stdout,
    )
    print()
