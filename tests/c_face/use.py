#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""examples/c_face.cpp from Python: keep sets and compacted caches of NumPy arrays against NumPy.

use.py LIBRARY
"""

import ctypes
import sys

import numpy as np

int32s = ctypes.POINTER(ctypes.c_int32)


class Cache(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("k", "v")),
        *((name, ctypes.c_int64) for name in ("pages", "page_stride", "head_stride", "slot_stride")),
        *((name, ctypes.c_void_p) for name in ("table", "lengths")),
        *((name, ctypes.c_int32) for name in ("sequences", "heads", "columns", "page_size", "head_dim", "type")),
    ]


class Queries(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("begin", ctypes.c_void_p),
        ("heads", ctypes.c_int32),
        ("window", ctypes.c_int32),
    ]


def load(path):
    lib = ctypes.CDLL(path)
    evictor, cache = ctypes.c_void_p, ctypes.POINTER(Cache)
    lib.kv_open.restype = evictor
    lib.kv_close.argtypes = [evictor]
    lib.kv_plan.argtypes = [evictor, cache, ctypes.POINTER(Queries), ctypes.c_int32]
    lib.kv_kept.argtypes = [evictor, ctypes.c_int32, ctypes.c_int32, ctypes.POINTER(int32s)]
    lib.kv_kept.restype = ctypes.c_int64
    lib.kv_compact.argtypes = [evictor, cache, ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int64)]
    lib.kv_plan.restype = lib.kv_compact.restype = ctypes.c_char_p
    return lib


class Paged:
    """K and V (pages, heads, slots, D) in memory of the given order of axes, and a table; or (B, heads, slots, D)."""

    types = {np.dtype(np.float32): 0, np.dtype(np.float16): 1}

    def __init__(self, random, dtype, lengths, heads, page_size, axes, contiguous):
        self.lengths = np.array(lengths, np.int32)
        self.heads, self.page_size = heads, page_size
        columns = 1 if contiguous else -(-max(lengths) // page_size)
        used = [1 if contiguous else -(-n // page_size) for n in lengths]
        pages = len(lengths) if contiguous else sum(used) + 3
        shape = np.array([pages, heads, page_size, self.head_dim])
        parts = []
        for _ in "kv":
            memory = random.standard_normal(shape[list(axes)]).astype(dtype)
            parts.append(memory.transpose(np.argsort(axes)))
        self.k, self.v = parts
        ids = np.arange(pages) if contiguous else random.permutation(pages)
        self.table = np.full((len(lengths), columns), -1, np.int32)
        for b, n in enumerate(used):
            self.table[b, :n], ids = ids[:n], ids[n:]
        self.contiguous = contiguous

    head_dim = 16

    def c(self):
        table = None if self.contiguous else self.table.ctypes.data
        return Cache(
            *(x.ctypes.data for x in (self.k, self.v)),
            self.k.shape[0],
            *self.k.strides[:3],
            table,
            self.lengths.ctypes.data,
            len(self.lengths),
            self.heads,
            self.table.shape[1],
            self.page_size,
            self.head_dim,
            self.types[self.k.dtype],
        )

    def rows(self, x, b, h):
        """(N, D)"""
        return np.concatenate([x[page, h] for page in self.table[b] if page >= 0])[: self.lengths[b]].copy()


def streaming(n, budget, sinks=4):
    if n <= budget:
        return np.arange(n)
    sinks = min(sinks, budget - 1)
    return np.concatenate([np.arange(sinks), np.arange(n - (budget - sinks), n)])


def snapkv(keys, queries, budget, pool=7):
    """keys (N, D), queries (G, W, D) in double precision."""
    n, window = len(keys), queries.shape[1]
    if n <= budget:
        return np.arange(n)
    logits = queries @ keys.T / np.sqrt(keys.shape[1])
    sees = np.arange(n)[None, :] <= np.arange(n - window, n)[:, None]
    logits = np.where(sees, logits, -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    scores = (weights / weights.sum(-1, keepdims=True)).mean((0, 1))[: n - window]
    padded = np.pad(scores, pool // 2, constant_values=-1)
    pooled = np.lib.stride_tricks.sliding_window_view(padded, pool).max(-1)
    order = np.lexsort((-np.arange(len(pooled)), -pooled))  # of equal scores the newer token
    return np.concatenate([np.sort(order[: budget - window]), np.arange(n - window, n)])


def kept(lib, evictor, b, h):
    slots = int32s()
    count = lib.kv_kept(evictor, b, h, ctypes.byref(slots))
    assert count >= 0, "there is no plan"
    return np.ctypeslib.as_array(slots, (count,)).copy() if count else np.zeros(0, np.int32)


def evict(lib, evictor, random, cache, budget, window, q_heads):
    """Plans and compacts, and compares; returns the tokens compared."""
    sequences, group = len(cache.lengths), q_heads // cache.heads
    queries = random.standard_normal((sequences * window, q_heads, cache.head_dim)).astype(np.float32)
    begin = np.arange(sequences + 1, dtype=np.int32) * window
    q = Queries(queries.ctypes.data, begin.ctypes.data, q_heads, window)
    error = lib.kv_plan(evictor, cache.c(), ctypes.byref(q) if window else None, budget)
    assert error is None, error
    wanted = {}
    for b in range(sequences):
        for h in range(cache.heads):
            keys, values = (cache.rows(x, b, h) for x in (cache.k, cache.v))
            if window:
                of = queries[begin[b] : begin[b + 1], h * group : (h + 1) * group].transpose(1, 0, 2)
                keep = snapkv(keys.astype(np.float64), of.astype(np.float64), budget)
            else:
                keep = streaming(len(keys), budget)
            assert np.array_equal(kept(lib, evictor, b, h), keep), (b, h)
            wanted[b, h] = keys[keep], values[keep]
    used = [[p for p in row if p >= 0] for row in cache.table]
    untouched = np.setdiff1d(np.arange(len(cache.k)), cache.table)
    guards = cache.k[untouched].copy()
    lengths, freed, count = np.zeros(sequences, np.int32), np.zeros(cache.table.size, np.int32), ctypes.c_int64()
    error = lib.kv_compact(evictor, cache.c(), lengths.ctypes.data, freed.ctypes.data, ctypes.byref(count))
    assert error is None, error
    assert np.array_equal(lengths, np.minimum(cache.lengths, budget))
    gone = [] if cache.contiguous else [p for row, n in zip(used, lengths) for p in row[-(-n // cache.page_size) :]]
    assert freed[: count.value].tolist() == gone
    assert np.array_equal(cache.k[untouched], guards)
    cache.lengths[:] = lengths
    for row, n in zip(cache.table, lengths):
        row[1 if cache.contiguous else -(-n // cache.page_size) :] = -1
    for (b, h), (keys, values) in wanted.items():
        assert np.array_equal(cache.rows(cache.k, b, h), keys) and np.array_equal(cache.rows(cache.v, b, h), values)
    return int(lengths.sum()) * cache.heads


def refusals(lib, evictor, random):
    """Errors are texts; nothing has been changed."""
    cache = Paged(random, np.dtype(np.float32), [40, 25], 2, 8, (0, 1, 2, 3), False)
    lengths, freed, count = np.zeros(2, np.int32), np.zeros(16, np.int32), ctypes.c_int64(-1)
    before = cache.k.copy(), cache.v.copy()

    def plan(c, budget=20):
        return (lib.kv_plan(evictor, c, None, budget) or b"").decode()

    def compact(c):
        return (lib.kv_compact(evictor, c, lengths.ctypes.data, freed.ctypes.data, ctypes.byref(count)) or b"").decode()

    def changed(**fields):
        c = cache.c()
        for name, value in fields.items():
            setattr(c, name, value)
        return c

    said = {
        "a budget of -3 tokens": plan(cache.c(), -3),
        "no cache": plan(None),
        "none of f32": plan(changed(type=7)),
        "slot_stride": plan(changed(slot_stride=cache.k.strides[2] // 4)),  # in elements
        "has id": plan(changed(pages=2)),
        "lengths.data is null": plan(changed(lengths=None)),
        "refused": compact(cache.c()),  # the plan before it
    }
    assert plan(cache.c()) == ""
    cache.lengths[1] = 26
    said["has 26 tokens, but the keep set was planned for 25"] = compact(cache.c())
    cache.lengths[1] = 25
    said["has no memory"] = (lib.kv_compact(evictor, cache.c(), None, None, None) or b"").decode()
    said["the evictor is NULL"] = lib.kv_plan(None, cache.c(), None, 20).decode()
    for text, error in said.items():
        assert text in error, (text, error)
    slots = int32s()
    assert lib.kv_kept(evictor, 2, 0, ctypes.byref(slots)) == lib.kv_kept(evictor, 0, -1, ctypes.byref(slots)) == -1
    assert all(np.array_equal(x, y) for x, y in zip(before, (cache.k, cache.v))) and count.value == -1
    return len(said)


def main():
    lib, random, cases, tokens = load(sys.argv[1]), np.random.default_rng(17), 0, 0
    evictor = lib.kv_open()
    for dtype in (np.float32, np.float16):
        for axes in ((0, 1, 2, 3), (0, 2, 1, 3)):  # HND, NHD
            for contiguous in (False, True):
                for window in (0, 8):
                    cache = Paged(
                        random, np.dtype(dtype), [61, 9, 40, 33], 2, 64 if contiguous else 8, axes, contiguous
                    )
                    for budget in (33, 17):  # turn by turn
                        tokens += evict(lib, evictor, random, cache, budget, window, 4)
                        cases += 1
    texts = refusals(lib, evictor, random)
    lib.kv_close(evictor)
    print(f"c_face: {cases} evictions, {tokens} tokens and their keep sets as NumPy's, {texts} errors as texts")


main()
