// SPDX-License-Identifier: Apache-2.0
// Naive attention in double precision for one sequence. Written to be obviously right; nothing here is shared with the
// library.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <stdexcept>
#include <utility>
#include <vector>

namespace reference {

using row = std::vector<double>;
using rows = std::vector<row>;               // (H,M) and the like
using index_row = std::vector<std::size_t>;  // ascending token indices
using index_rows = std::vector<index_row>;   // one per KV head

/// Dense (heads, tokens, width).
struct cube {
  std::size_t heads = 0, tokens = 0, width = 0;
  std::vector<double> data;

  cube() = default;
  cube(std::size_t h, std::size_t n, std::size_t d, std::vector<double> values)
      : heads{h}, tokens{n}, width{d}, data(std::move(values)) {
    if (data.size() != h * n * d)
      throw std::invalid_argument("reference::cube: data does not have heads*tokens*width elements");
  }
  cube(std::size_t h, std::size_t n, std::size_t d) : cube(h, n, d, std::vector<double>(h * n * d, 0.0)) {}

  double& at(std::size_t h, std::size_t n, std::size_t d) { return data.at((h * tokens + n) * width + d); }
  [[nodiscard]] double at(std::size_t h, std::size_t n, std::size_t d) const {
    return data.at((h * tokens + n) * width + d);
  }
};

/// One layer of one sequence. Token N-1 is the newest. Queries may be all N rows or only the last ones.
struct layer {
  cube queries;          // (Hq,N,D) or (Hq,W,D): the last W rows
  cube keys;             // (H,N,D)
  cube values;           // (H,N,D), may be empty for what needs no values
  double scale = 0.0;    // 0: 1/sqrt(D)
  double softcap = 0.0;  // 0: none; else z = softcap*tanh(scale*x/softcap)

  [[nodiscard]] std::size_t Hq() const { return queries.heads; }
  [[nodiscard]] std::size_t H() const { return keys.heads; }
  [[nodiscard]] std::size_t G() const { return Hq() / H(); }
  [[nodiscard]] std::size_t N() const { return keys.tokens; }
  [[nodiscard]] std::size_t D() const { return keys.width; }
  [[nodiscard]] std::size_t kv_head(std::size_t hq) const { return hq / G(); }
};

/// The first `count` tokens of every head.
inline cube first_tokens(cube const& x, std::size_t count) {
  cube out(x.heads, count, x.width);
  for (std::size_t h = 0; h < x.heads; ++h)
    for (std::size_t n = 0; n < count; ++n)
      for (std::size_t d = 0; d < x.width; ++d) out.at(h, n, d) = x.at(h, n, d);
  return out;
}

/// The layer as it was when only its first `count` tokens had been seen; needs all N query rows.
inline layer prefix(layer const& in, std::size_t count) {
  if (in.queries.tokens != in.N()) throw std::invalid_argument("reference::prefix: needs all query rows");
  layer out = in;
  out.queries = first_tokens(in.queries, count);
  out.keys = first_tokens(in.keys, count);
  if (in.values.tokens == in.N()) out.values = first_tokens(in.values, count);
  return out;
}

/// Rotary embedding, half-split: (x[d], x[d+D/2]) rotated by position*base^(-2d/D).
inline cube rope(cube const& x, double base = 10000.0, std::size_t first_position = 0) {
  cube out = x;
  std::size_t const half = x.width / 2;
  for (std::size_t h = 0; h < x.heads; ++h)
    for (std::size_t n = 0; n < x.tokens; ++n)
      for (std::size_t d = 0; d < half; ++d) {
        double const frequency = std::pow(base, -2.0 * static_cast<double>(d) / static_cast<double>(x.width));
        double const angle = static_cast<double>(first_position + n) * frequency;
        double const a = x.at(h, n, d);
        double const b = x.at(h, n, d + half);
        out.at(h, n, d) = a * std::cos(angle) - b * std::sin(angle);
        out.at(h, n, d + half) = b * std::cos(angle) + a * std::sin(angle);
      }
  return out;
}

/// Row of `queries` that belongs to the token at `position`.
inline std::size_t query_row(layer const& in, std::size_t position) {
  std::size_t const first = in.N() - in.queries.tokens;
  if (position < first || position >= in.N()) throw std::out_of_range("reference: no query row for this position");
  return position - first;
}

/// z_ij: the model's logit of query head hq at position i for key j.
inline double logit(layer const& in, std::size_t hq, std::size_t i, std::size_t j) {
  std::size_t const q = query_row(in, i);
  double dot = 0.0;
  for (std::size_t d = 0; d < in.D(); ++d) dot += in.queries.at(hq, q, d) * in.keys.at(in.kv_head(hq), j, d);
  double const scale = in.scale == 0.0 ? 1.0 / std::sqrt(static_cast<double>(in.D())) : in.scale;
  double const z = scale * dot;
  return in.softcap == 0.0 ? z : in.softcap * std::tanh(z / in.softcap);
}

/// ln Σ exp(z).
inline double log_sum_exp(row const& z) {
  double const top = *std::max_element(z.begin(), z.end());
  double sum = 0.0;
  for (double const x : z) sum += std::exp(x - top);
  return top + std::log(sum);
}

inline row softmax(row const& z) {
  double const lse = log_sum_exp(z);
  row out;
  for (double const x : z) out.push_back(std::exp(x - lse));
  return out;
}

/// Logits of row i for the listed keys.
inline row logits(layer const& in, std::size_t hq, std::size_t i, index_row const& keys) {
  row out;
  for (std::size_t const j : keys) out.push_back(logit(in, hq, i, j));
  return out;
}

inline index_row first_indices(std::size_t count) {
  index_row out(count);
  for (std::size_t j = 0; j < count; ++j) out[j] = j;
  return out;
}

/// softmax(gain*z) of row i over the listed keys; gain 1 is the model's own attention.
inline row attention_row(layer const& in, std::size_t hq, std::size_t i, index_row const& keys, double gain = 1.0) {
  row z = logits(in, hq, i, keys);
  for (double& x : z) x *= gain;
  return softmax(z);
}

/// Causal attention of row i: weights of keys 0..i.
inline row attention_row(layer const& in, std::size_t hq, std::size_t i) {
  return attention_row(in, hq, i, first_indices(i + 1));
}

/// Natural log-sum-exp of every query row, (Hq, query rows).
inline rows row_lse(layer const& in) {
  rows out(in.Hq());
  for (std::size_t h = 0; h < in.Hq(); ++h)
    for (std::size_t i = in.N() - in.queries.tokens; i < in.N(); ++i)
      out[h].push_back(log_sum_exp(logits(in, h, i, first_indices(i + 1))));
  return out;
}

/// The kept keys that row i may see.
inline index_row visible(index_row const& kept, std::size_t i) {
  index_row out;
  for (std::size_t const j : kept)
    if (j <= i) out.push_back(j);
  return out;
}

/// Output of query head hq at row i when only `kept` (of its KV head) is attended: Σ_j a_j v_j, (D).
inline row attention_output(layer const& in, std::size_t hq, std::size_t i, index_row const& kept) {
  index_row const keys = visible(kept, i);
  row const weights = attention_row(in, hq, i, keys);
  row out(in.values.width, 0.0);
  for (std::size_t n = 0; n < keys.size(); ++n)
    for (std::size_t d = 0; d < out.size(); ++d) out[d] += weights[n] * in.values.at(in.kv_head(hq), keys[n], d);
  return out;
}

}  // namespace reference
