// SPDX-License-Identifier: Apache-2.0
// Naive scores: windows, columns, pooling, norms, the oracle. All are (H, tokens) unless said otherwise.
#pragma once

#include "support/reference_attention.hpp"

namespace reference {

enum class reduce { mean, max, sum };
enum class pool { max, average };

/// Reduces (Hq,M) to (H,M) over the G query heads of every KV head.
inline rows reduce_group(rows const& per_query_head, std::size_t H, reduce how) {
  std::size_t const G = per_query_head.size() / H;
  rows out;
  for (std::size_t h = 0; h < H; ++h) {
    row reduced = per_query_head[h * G];
    for (std::size_t g = 1; g < G; ++g)
      for (std::size_t j = 0; j < reduced.size(); ++j) {
        double const x = per_query_head[h * G + g][j];
        reduced[j] = how == reduce::max ? std::max(reduced[j], x) : reduced[j] + x;
      }
    if (how == reduce::mean)
      for (double& x : reduced) x /= static_cast<double>(G);
    out.push_back(reduced);
  }
  return out;
}

/// Stride 1, odd kernel k, same length. Max pads with -inf (the edge takes the maximum of what exists); average pads
/// with zeros and always divides by k.
inline row pooled(row const& in, std::size_t k, pool how) {
  std::size_t const reach = k / 2;
  row out;
  for (std::size_t j = 0; j < in.size(); ++j) {
    double top = -std::numeric_limits<double>::infinity();
    double sum = 0.0;
    for (std::size_t n = j < reach ? 0 : j - reach; n <= j + reach && n < in.size(); ++n) {
      top = std::max(top, in[n]);
      sum += in[n];
    }
    out.push_back(how == pool::max ? top : sum / static_cast<double>(k));
  }
  return out;
}

inline rows pooled(rows const& in, std::size_t k, pool how) {
  rows out;
  for (row const& r : in) out.push_back(pooled(r, k, how));
  return out;
}

/// Mean over the last W rows of causal attention, for the tokens before the window, per query head: (Hq, N-W).
inline rows window_means(layer const& in, std::size_t W) {
  rows out;
  for (std::size_t h = 0; h < in.Hq(); ++h) {
    row mean(in.N() - W, 0.0);
    for (std::size_t i = in.N() - W; i < in.N(); ++i) {
      row const a = attention_row(in, h, i);
      for (std::size_t j = 0; j < mean.size(); ++j) mean[j] += a[j] / static_cast<double>(W);
    }
    out.push_back(mean);
  }
  return out;
}

struct window_options {
  std::size_t window = 32;
  std::size_t kernel = 7;  // 1: no pooling
  pool pooling = pool::max;
  reduce group = reduce::mean;
  bool pool_before_group = false;
};

/// SnapKV's score, (H, N-W): window mean, group reduce, pool over [0, N-W) (or pool, then reduce).
inline rows window_scores(layer const& in, window_options const& o) {
  rows const means = window_means(in, std::min(o.window, in.N()));
  if (o.pool_before_group) return reduce_group(pooled(means, o.kernel, o.pooling), in.H(), o.group);
  return pooled(reduce_group(means, in.H(), o.group), o.kernel, o.pooling);
}

/// H2O's prefill score, (H,N): o_j = Σ_{i≥j} a_ij over all rows, then the group reduce.
inline rows column_sums(layer const& in, reduce group = reduce::mean) {
  rows out;
  for (std::size_t h = 0; h < in.Hq(); ++h) {
    row sums(in.N(), 0.0);
    for (std::size_t i = 0; i < in.N(); ++i) {
      row const a = attention_row(in, h, i);
      for (std::size_t j = 0; j <= i; ++j) sums[j] += a[j];
    }
    out.push_back(sums);
  }
  return reduce_group(out, in.H(), group);
}

/// Observed attention, (H,N): column sums divided by the number of rows that see the column, N-j for the 0-based j.
inline rows column_means(layer const& in, reduce group = reduce::mean) {
  rows out = column_sums(in, group);
  for (row& r : out)
    for (std::size_t j = 0; j < r.size(); ++j) r[j] /= static_cast<double>(in.N() - j);
  return out;
}

/// Squared L2 norm of every token, (H,N).
inline rows squared_norms(cube const& x) {
  rows out(x.heads, row(x.tokens, 0.0));
  for (std::size_t h = 0; h < x.heads; ++h)
    for (std::size_t n = 0; n < x.tokens; ++n)
      for (std::size_t d = 0; d < x.width; ++d) out[h][n] += x.at(h, n, d) * x.at(h, n, d);
  return out;
}

/// L2 norm of every token, (H,N).
inline rows norms(cube const& x) {
  rows out = squared_norms(x);
  for (row& r : out)
    for (double& v : r) v = std::sqrt(v);
  return out;
}

/// Knorm: -‖k‖₂.
inline rows negative_key_norms(layer const& in) {
  rows out = norms(in.keys);
  for (row& r : out)
    for (double& v : r) v = -v;
  return out;
}

/// Streaming's 0/1 score as kvpress writes it, for n_pruned tokens: 1 kept, 0 pruned.
inline row streaming_score(std::size_t N, std::size_t sinks, std::size_t pruned) {
  row out(N, 1.0);
  for (std::size_t j = sinks; j < sinks + pruned && j < N; ++j) out[j] = 0.0;
  return out;
}

/// True attention of the next T rows: `in` holds N+T tokens with all query rows; mean over the T rows, then over the
/// group, for the first N tokens, (H,N). Every future row is normalised over all it sees (prompt and earlier future
/// tokens).
inline rows oracle_scores(layer const& in, std::size_t N, reduce group = reduce::mean) {
  std::size_t const T = in.N() - N;
  rows out(in.Hq(), row(N, 0.0));
  for (std::size_t hq = 0; hq < in.Hq(); ++hq)
    for (std::size_t i = N; i < in.N(); ++i) {
      row const a = attention_row(in, hq, i);
      for (std::size_t j = 0; j < N; ++j) out[hq][j] += a[j] / static_cast<double>(T);
    }
  return reduce_group(out, in.H(), group);
}

}  // namespace reference
