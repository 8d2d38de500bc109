// SPDX-License-Identifier: Apache-2.0
// Naive AhaKV scores of prefill: step gain, value prior, recent accumulation.
#pragma once

#include "support/reference_scores.hpp"

namespace reference {

/// AhaKV's gain on the model's logits of the row that sees i tokens (i = position + 1) with budget k: max(min_gain, √(2
/// ln(i/k))); min_gain when i ≤ k.
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
inline row step_gain_row(layer const& in, std::size_t h, std::size_t i, index_row const& keys, std::size_t budget,
                         ahakv_options const& o) {
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

}  // namespace reference
