#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Rows of the table of bench/run.sh --cuda: the causal forward of PyTorch's flash attention on the shapes of the
column sums."""

import statistics
import sys

try:
    import torch
except ImportError:
    sys.exit("bench/cuda/sdpa.py: PyTorch is not installed; the column sums stand without their baseline")
if not torch.cuda.is_available():
    sys.exit("bench/cuda/sdpa.py: PyTorch finds no GPU; the column sums stand without their baseline")

from torch.nn.attention import SDPBackend, sdpa_kernel


def median_us(call, repetitions=21):
    times = []
    for i in range(-3, repetitions):
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        stop.record()
        stop.synchronize()
        if i >= 0:
            times.append(start.elapsed_time(stop) * 1000)
    return statistics.median(times)


for tokens in (8192, 32768):
    q, k, v = (torch.randn(1, heads, tokens, 128, dtype=torch.bfloat16, device="cuda") for heads in (32, 8, 8))
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        us = median_us(
            lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        )
    print(f"| sdpa/flash/pytorch {torch.__version__} | {tokens} | {us:.1f} | | | |")
