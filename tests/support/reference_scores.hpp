// Naive scores: windows, columns, pooling, AhaKV, norms. All are (H, tokens) unless said otherwise.
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

/// Stride 1, odd kernel k, same length. Max pads with -inf (the edge takes the maximum of what exists); average pads with zeros and
/// always divides by k.
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

/// AhaKV's gain on the model's logits of the row that sees i tokens (i = position + 1) with budget k: max(min_gain, √(2 ln(i/k)));
/// min_gain when i ≤ k.
inline double step_gain(std::size_t i, std::size_t k, double min_gain = 0.0) {
  if (i <= k) return min_gain;
  return std::max(min_gain, std::sqrt(2.0 * std::log(static_cast<double>(i) / static_cast<double>(k))));
}

struct ahakv_options {
  std::size_t recent = 32;
  std::size_t value_pool = 5;  // 1: no pooling of the value prior
  bool use_gain = true;        // off: the model's own attention
  bool use_prior = true;
  double min_gain = 0.0;
  reduce group = reduce::mean;
};

/// γ̄ of one head: ν = ‖v‖², pooled by average, divided by the maximum over all the given tokens (maximum 0: all ones).
inline row value_prior(row const& squared, ahakv_options const& o) {
  if (!o.use_prior) return row(squared.size(), 1.0);
  row out = pooled(squared, o.value_pool, pool::average);
  double const top = out.empty() ? 0.0 : *std::max_element(out.begin(), out.end());
  for (double& x : out) x = top == 0.0 ? 1.0 : x / top;
  return out;
}

/// γ̄, (H,N).
inline rows value_prior(layer const& in, ahakv_options const& o) {
  if (!o.use_prior) return rows(in.H(), row(in.N(), 1.0));
  rows out;
  for (row const& r : squared_norms(in.values)) out.push_back(value_prior(r, o));
  return out;
}

/// One row of AhaKV's accumulation for the listed keys, per KV head: group reduce of softmax(g_i*z).
inline row step_gain_row(layer const& in, std::size_t h, std::size_t i, index_row const& keys, std::size_t budget, ahakv_options const& o) {
  double const gain = o.use_gain ? step_gain(i + 1, budget, o.min_gain) : 1.0;
  rows per_head;
  for (std::size_t g = 0; g < in.G(); ++g) per_head.push_back(attention_row(in, h * in.G() + g, i, keys, gain));
  return reduce_group(per_head, 1, o.group)[0];
}

/// S of the last r rows without the prior, (H, N-r). The group is reduced after the sum over rows.
inline rows recent_accumulation(layer const& in, std::size_t budget, ahakv_options const& o) {
  std::size_t const r = std::min(o.recent, in.N());
  rows sums(in.Hq(), row(in.N() - r, 0.0));
  for (std::size_t hq = 0; hq < in.Hq(); ++hq)
    for (std::size_t i = in.N() - r; i < in.N(); ++i) {
      double const gain = o.use_gain ? step_gain(i + 1, budget, o.min_gain) : 1.0;
      row const a = attention_row(in, hq, i, first_indices(i + 1), gain);
      for (std::size_t j = 0; j < in.N() - r; ++j) sums[hq][j] += a[j];
    }
  return reduce_group(sums, in.H(), o.group);
}

/// Ŝ of prefill, (H, N-r): prior times accumulation.
inline rows ahakv_scores(layer const& in, std::size_t budget, ahakv_options const& o) {
  rows out = recent_accumulation(in, budget, o);
  rows const prior = value_prior(in, o);
  for (std::size_t h = 0; h < out.size(); ++h)
    for (std::size_t j = 0; j < out[h].size(); ++j) out[h][j] *= prior[h][j];
  return out;
}

/// True attention of the next T rows: `in` holds N+T tokens with all query rows; mean over the T rows, then over the group, for the
/// first N tokens, (H,N). Every future row is normalised over all it sees (prompt and earlier future tokens).
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
