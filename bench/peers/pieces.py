# SPDX-License-Identifier: Apache-2.0
"""One layer's tensors, and the pieces of work that kvevict_pieces.cpp does on them."""

import ctypes

import torch

TYPES = {torch.float32: 0, torch.bfloat16: 2}
ALPHA = 0.2  # Ada's floor


class PiecesLayer(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("queries", "k", "v", "given")]
    _fields_ += [
        (name, ctypes.c_int32)
        for name in ("q_heads", "heads", "tokens", "head_dim", "window", "budget", "forced", "type")
    ]


def load(path):
    c = ctypes.CDLL(path)
    c.pieces_open.restype, c.pieces_open.argtypes = ctypes.c_void_p, [ctypes.POINTER(PiecesLayer)]
    c.pieces_close.restype, c.pieces_close.argtypes = None, [ctypes.c_void_p]
    c.pieces_run.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    c.pieces_error.restype, c.pieces_error.argtypes = ctypes.c_char_p, [ctypes.c_void_p]
    c.pieces_scores.restype, c.pieces_scores.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    c.pieces_kept.restype = ctypes.c_int64
    c.pieces_kept.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))]
    return c


class Layer:
    """Queries (W,Hq,D) of the window, K and V (1,H,N,D), scores (H,N) to select by; contiguous, and used where they
    are."""

    def __init__(self, library, queries, keys, values, given, budget):
        self.queries, self.keys, self.values, self.given, self.budget = queries, keys, values, given, budget
        _, self.heads, self.tokens, self.dim = keys.shape
        self.window, self.q_heads, _ = queries.shape
        self.dtype = keys.dtype
        self.whole = keys.clone(), values.clone()
        self.c = library
        tensors = queries, keys, values, given
        if not all(t.is_contiguous() for t in tensors):
            raise ValueError("a tensor is not contiguous")
        self.forced = max(1, int(budget * ALPHA))  # of each head, by kvpress' Ada
        sizes = self.q_heads, self.heads, self.tokens, self.dim, self.window, budget, self.forced
        self.pieces = self.c.pieces_open(PiecesLayer(*(t.data_ptr() for t in tensors), *sizes, TYPES[self.dtype]))
        if not self.pieces:
            raise MemoryError("pieces_open")

    @property
    def ratio(self):
        """What kvpress is to remove: it truncates N·(1 − ratio)."""
        return 1 - (self.budget + 0.5) / self.tokens

    def close(self):
        self.c.pieces_close(self.pieces)

    def run(self, piece):
        if self.c.pieces_run(self.pieces, piece.encode()):
            raise RuntimeError(f"{piece}: {self.c.pieces_error(self.pieces).decode()}")

    def scores(self, tokens=None):
        """Of the last piece that scored, (H, tokens)."""
        floats = ctypes.c_float * (self.heads * self.tokens)
        at = ctypes.cast(self.c.pieces_scores(self.pieces), ctypes.POINTER(floats))
        return torch.frombuffer(at.contents, dtype=torch.float32).reshape(self.heads, -1)[:, :tokens].clone()

    def kept(self):
        """Of the last piece that selected, a mask (H,N)."""
        mask = torch.zeros(self.heads, self.tokens, dtype=torch.bool)
        for h in range(self.heads):
            slots = ctypes.POINTER(ctypes.c_int32)()
            count = self.c.pieces_kept(self.pieces, h, ctypes.byref(slots))
            mask[h, torch.tensor(slots[:count], dtype=torch.long)] = True
        return mask

    def mask_of(self, indices):
        """A mask (H,N) of those tokens of each head."""
        return torch.zeros(self.heads, self.tokens, dtype=torch.bool).scatter_(-1, indices, True)

    def masked_by(self, module):
        """What kvpress' Ada keeps, (H,N)."""
        mask = torch.ones(self.heads, self.tokens, dtype=torch.bool)
        mask[module.masked_key_indices[1:]] = False
        return mask

    def restore(self):
        self.keys.copy_(self.whole[0])
        self.values.copy_(self.whole[1])
