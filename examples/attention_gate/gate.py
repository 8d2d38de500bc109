# SPDX-License-Identifier: Apache-2.0
"""The gates and the attention that sees their flags.

    Q' = X Wq'^T, K' = X Wk'^T, V' = X Wv'^T               (N, Hg*dg)
    C  = concat_h softmax(causal(Q'_h K'_h^T / sqrt(dg))) V'_h
    p  = sigmoid(C Wo'^T + b)                               (N, H)
    keep_j = p_j > tau, or j is a sink;  row i attends to { j <= i : keep_j or j = i }

Attention-Gate, Zeng et al. 2024, arXiv:2410.12876. The paper publishes neither code nor sizes: this is our design of
it.
"""

import math

import torch
import torch.nn.functional as F


class Gate(torch.nn.Module):
    """The gate of one layer: X (N,E) -> the logits of p (H,N)."""

    def __init__(self, width, kv_heads, gate_heads, gate_dim):
        super().__init__()
        self.heads = gate_heads
        inner = gate_heads * gate_dim
        self.q, self.k, self.v = (torch.nn.Parameter(torch.randn(inner, width) / math.sqrt(width)) for _ in range(3))
        self.o = torch.nn.Parameter(torch.randn(kv_heads, inner) / math.sqrt(inner))
        self.bias = torch.nn.Parameter(torch.zeros(kv_heads))

    @torch.no_grad()
    def look_at_self(self, x, logit=11.0):
        """Wq' = Wk' = the leading directions of x (N,E), whitened so that a token's logit with itself is `logit` on
        average: softmax over 1 000 others would hide a token's own features otherwise. The second head starts half as
        sharp."""
        dim = len(self.q) // self.heads
        _, s, basis = torch.linalg.svd((x - x.mean(0)).cpu(), full_matrices=False)
        white = basis[: len(self.q)] * (len(x) ** 0.5 / s[: len(self.q), None])  # unit variance along each direction
        for h in range(self.heads):
            rows = slice(h * dim, (h + 1) * dim)
            self.q[rows] = self.k[rows] = white[h :: self.heads].to(x) * math.sqrt(logit / (h + 1) / math.sqrt(dim))

    def forward(self, x):
        split = lambda w: F.linear(x, w).view(len(x), self.heads, -1).transpose(0, 1)[None]  # (1,Hg,N,dg)
        c = F.scaled_dot_product_attention(split(self.q), split(self.k), split(self.v), is_causal=True)[0]
        return (F.linear(c.transpose(0, 1).flatten(1), self.o) + self.bias).T


class StraightThrough(torch.autograd.Function):
    """1[p > tau] forward, the gradient goes to p."""

    @staticmethod
    def forward(ctx, p, tau):
        return (p > tau).to(p)

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


def flags_of(logits, tau, sinks):
    """Keep flags (H,N) with a gradient to p; the first `sinks` tokens are always kept."""
    flags = StraightThrough.apply(torch.sigmoid(logits), tau)
    return torch.cat((torch.ones_like(flags[:, :sinks]), flags[:, sinks:]), 1)


class FlaggedAttention(torch.autograd.Function):
    """Causal attention with weights e^z F / sum e^z F, own column always 1: the gradient with respect to F exists where
    F = 0 too.

    q (Hq,N,D), k and v (H,N,D), flags (H,N) in [0,1] -> (Hq,N,D). Blocks of rows, never N x N; the backward pass
    computes the weights again.
    """

    rows = 128

    @staticmethod
    def logits(q, k, start, stop):
        """z (H,G,R,stop) of rows [start,stop), -inf above the diagonal, and the view of its own columns (H,G,R)."""
        H, G, _, D = q.shape
        z = torch.matmul(q[:, :, start:stop].reshape(H, -1, D) * D**-0.5, k[:, :stop].transpose(1, 2)).view(
            H, G, stop - start, stop
        )
        z[..., start:].masked_fill_(
            torch.ones(stop - start, stop - start, dtype=torch.bool, device=z.device).triu(1), -math.inf
        )
        return z, z[..., start:].diagonal(dim1=-2, dim2=-1)

    @staticmethod
    def forward(ctx, q, k, v, flags):
        H, N, D = k.shape
        q = q.view(H, -1, N, D)
        out, lse = torch.empty_like(q), torch.empty(q.shape[:3], device=q.device, dtype=q.dtype)
        hidden = flags.log()[:, None, None]
        for start in range(0, N, FlaggedAttention.rows):
            stop = min(N, start + FlaggedAttention.rows)
            z, own = FlaggedAttention.logits(q, k, start, stop)
            kept = own.clone()
            z += hidden[..., :stop]
            own.copy_(kept)
            lse[:, :, start:stop] = z.logsumexp(-1)
            z = z.sub_(lse[:, :, start:stop, None]).exp_()
            out[:, :, start:stop] = torch.matmul(z.view(H, -1, stop), v[:, :stop]).view(H, -1, stop - start, D)
        ctx.save_for_backward(q, k, v, flags, out, lse)
        return out.view(-1, N, D)

    @staticmethod
    def backward(ctx, d_out):
        q, k, v, flags, out, lse = ctx.saved_tensors
        H, N, D = k.shape
        d_out = d_out.reshape(q.shape)
        d_q, d_k, d_v, d_flags = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v), torch.zeros_like(flags)
        shift = (d_out * out).sum(-1)
        for start in range(0, N, FlaggedAttention.rows):
            stop = min(N, start + FlaggedAttention.rows)
            e, own = FlaggedAttention.logits(q, k, start, stop)
            e.sub_(lse[:, :, start:stop, None]).exp_()  # e^z / sum e^z F
            d = d_out[:, :, start:stop].reshape(H, -1, D)
            t = torch.matmul(d, v[:, :stop].transpose(1, 2)).view(e.shape).sub_(shift[:, :, start:stop, None]).mul_(e)
            t_own, e_own = t[..., start:].diagonal(dim1=-2, dim2=-1), own.clone()
            kept = t_own.clone()
            t_own.zero_()
            d_flags[:, :stop] += t.sum((1, 2))
            f = flags[:, None, None, :stop]
            t.mul_(f), e.mul_(f)
            t_own.copy_(kept), own.copy_(e_own)
            t, e = t.view(H, -1, stop), e.view(H, -1, stop)
            d_q[:, :, start:stop] = torch.matmul(t, k[:, :stop]).view(H, -1, stop - start, D) * D**-0.5
            d_k[:, :stop] += torch.matmul(t.transpose(1, 2), q[:, :, start:stop].reshape(H, -1, D)) * D**-0.5
            d_v[:, :stop] += torch.matmul(e.transpose(1, 2), d)
        return d_q.view(-1, N, D), d_k, d_v, d_flags


flagged_attention = FlaggedAttention.apply


class Gates(torch.nn.ModuleList):
    """One gate per layer of a model."""

    def __init__(self, config, gate_heads, gate_dim):
        super().__init__(
            Gate(config["hidden"], config["kv_heads"], gate_heads, gate_dim) for _ in range(config["layers"])
        )

    def attend(self, tau, sinks, kept):
        """The attention under the flags, for Llama.hidden; appends every layer's mean keep (without sinks) to
        `kept`."""

        def under_flags(layer, x, q, k, v):
            flags = flags_of(self[layer](x), tau, sinks)
            kept.append(flags[:, sinks:].mean())
            return flagged_attention(q, k, v, flags)

        return under_flags
