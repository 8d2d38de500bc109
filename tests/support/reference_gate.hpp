// SPDX-License-Identifier: Apache-2.0
// Naive Attention-Gate in double precision: probabilities, flags, and attention under flags as the training objective
// sees it.
#pragma once

#include "support/reference_attention.hpp"

namespace reference {

enum class gate_sight { causal, whole };

/// Matrices row-major, a row per output.
struct gate {
  std::size_t heads = 1, width = 1, features = 1, flags = 1;
  row wq, wk, wv;  // (heads·width, features)
  row wo, bias;    // (flags, heads·width), (flags)
};

inline row linear(row const& w, row const& x) {
  row out;
  for (std::size_t o = 0; o < w.size() / x.size(); ++o) {
    double sum = 0;
    for (std::size_t i = 0; i < x.size(); ++i) sum += w[o * x.size() + i] * x[i];
    out.push_back(sum);
  }
  return out;
}

/// p of every flag and token, (flags,N), from the hidden states (N,E).
inline rows gate_flags(gate const& g, rows const& X, gate_sight sees) {
  rows q, k, v, out(g.flags);
  for (row const& x : X) q.push_back(linear(g.wq, x)), k.push_back(linear(g.wk, x)), v.push_back(linear(g.wv, x));
  for (std::size_t t = 0; t < X.size(); ++t) {
    row c;
    for (std::size_t h = 0; h < g.heads; ++h) {
      row z;
      for (std::size_t n = 0; n < (sees == gate_sight::causal ? t + 1 : X.size()); ++n) {
        double dot = 0;
        for (std::size_t d = h * g.width; d < (h + 1) * g.width; ++d) dot += q[t][d] * k[n][d];
        z.push_back(dot / std::sqrt(static_cast<double>(g.width)));
      }
      row const a = softmax(z);
      for (std::size_t d = h * g.width; d < (h + 1) * g.width; ++d) {
        double sum = 0;
        for (std::size_t n = 0; n < a.size(); ++n) sum += a[n] * v[n][d];
        c.push_back(sum);
      }
    }
    row const y = linear(g.wo, c);
    for (std::size_t f = 0; f < g.flags; ++f) out[f].push_back(1 / (1 + std::exp(-(y[f] + g.bias[f]))));
  }
  return out;
}

/// p of H KV heads, (H,N): the largest of each group.
inline rows gate_of_heads(rows const& flags, std::size_t H) {
  std::size_t const G = flags.size() / H;
  rows out;
  for (std::size_t h = 0; h < H; ++h) {
    row p = flags[h * G];
    for (std::size_t f = h * G; f < (h + 1) * G; ++f)
      for (std::size_t t = 0; t < p.size(); ++t) p[t] = std::max(p[t], flags[f][t]);
    out.push_back(p);
  }
  return out;
}

struct gate_rule {
  double tau = 0.5;
  std::size_t first = 0, last = 0;  // protected tokens
};

/// A token stays when the flag of any query head of the group says so, or it is protected, or τ = 0.
inline index_rows keep_gate(rows const& flags, std::size_t H, gate_rule const& rule) {
  index_rows out(H);
  for (std::size_t h = 0; h < H; ++h) {
    std::size_t const N = flags[0].size(), G = flags.size() / H;
    for (std::size_t t = 0; t < N; ++t) {
      bool keep = rule.tau == 0 || t < rule.first || t + rule.last >= N;
      for (std::size_t f = h * G; f < (h + 1) * G; ++f) keep = keep || flags[f][t] > rule.tau;
      if (keep) out[h].push_back(t);
    }
  }
  return out;
}

/// The distance of the closest probability to τ: what float noise must stay below for flags to be the same.
inline double gate_margin(rows const& p, double tau) {
  double out = 1;
  for (row const& r : p)
    for (double const x : r) out = std::min(out, std::abs(x - tau));
  return out;
}

/// Weights of row i over keys 0..i under real flags F in [0,1] of its KV head: e^z·F / Σ e^z·F, where F of the row's
/// own token is 1.
inline row flagged_row(layer const& in, std::size_t hq, std::size_t i, row const& flags) {
  row const z = logits(in, hq, i, first_indices(i + 1));
  double const top = *std::max_element(z.begin(), z.end());
  row out;
  double sum = 0;
  for (std::size_t j = 0; j <= i; ++j) {
    out.push_back(std::exp(z[j] - top) * (j == i ? 1.0 : flags[j]));
    sum += out.back();
  }
  for (double& x : out) x /= sum;
  return out;
}

/// Its output, (D).
inline row flagged_output(layer const& in, std::size_t hq, std::size_t i, row const& flags) {
  row const a = flagged_row(in, hq, i, flags);
  row out(in.values.width, 0.0);
  for (std::size_t j = 0; j <= i; ++j)
    for (std::size_t d = 0; d < out.size(); ++d) out[d] += a[j] * in.values.at(in.kv_head(hq), j, d);
  return out;
}

/// Flags of N tokens, 1 for the kept.
inline row flags_of(index_row const& kept, std::size_t N) {
  row out(N, 0.0);
  for (std::size_t const j : kept) out[j] = 1;
  return out;
}

}  // namespace reference
