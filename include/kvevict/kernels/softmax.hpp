// SPDX-License-Identifier: Apache-2.0
// From a block of logits (tile.hpp) to softmax weights and their sums over query rows. Everything is in base 2.
#pragma once

#include <cmath>

#include <kvevict/core/messages.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/kernels/tile.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {
inline constexpr float below_all_logits = -1e30f;

/// From logits to 2^(z − peak), where peak is the row's maximum in this tile; that and the row's sum go to `peak` and
/// `sum`, and the exponentials to `kept`, unless it is null.  kept (row_block, tile_tokens)
inline void exponentiate(vec const (&z)[row_block][tile_vectors], float* kept, float* peak, float* sum) {
  vec x[row_block];
  float each[lanes];
  unroll<row_block>([&](auto r) {
    x[r] = z[r][0];
    for (int v = 1; v < tile_vectors; ++v) x[r] = max(x[r], z[r][v]);
  });
  store(each, max(splat(below_all_logits), reduce<row_block>(x, larger{})));
  for (int r = 0; r < row_block; ++r) {
    peak[r] = each[r * (lanes / row_block)];
    vec w[tile_vectors], s = {};
    unroll<tile_vectors>([&](auto v) { w[v] = z[r][v] - splat(peak[r]); });
    exp2(w);
    for (int v = 0; v < tile_vectors; ++v) {
      if (kept != nullptr) store(kept + r * tile_tokens + v * lanes, w[v]);
      s += w[v];
    }
    x[r] = s;
  }
  store(each, reduce<row_block>(x, add{}));
  for (int r = 0; r < row_block; ++r) sum[r] = each[r * (lanes / row_block)];
}

/// Takes a block's (peak, sum) of one more tile into running ones.
inline void merge(vec peak, vec sum, vec& all_peak, vec& all_sum) {
  vec const top = max(peak, all_peak);
  all_sum = multiply_add(all_sum, exp2(all_peak - top), sum * exp2(peak - top));
  all_peak = top;
}

/// log2 of Σ 2^z from a maximum and a sum; +∞ of a row that sees nothing, so that all weights are 0, and NaN of one
/// that sees −∞ alone: `sees_any` is called where nothing has added to the sum.
template <class SeesAny> float lse_of(float peak, float sum, SeesAny const& sees_any) {
  if (sum == 0) return sees_any() ? __builtin_nanf("") : __builtin_inff();
  return peak + __builtin_log2f(sum);
}

/// The same with one more logit, a learned sink's.
inline float lse_with(float lse, float sink) {
  if (lse == __builtin_inff()) return lse;
  float const top = lse > sink ? lse : sink;
  return top + __builtin_log2f(__builtin_exp2f(lse - top) + __builtin_exp2f(sink - top));
}

/// Adds 2^(z − lse) of a block's rows to their sums over rows, of `per_sum` rows each, and, where each row is checked,
/// to its running sum over tokens.  sums (…, tile_tokens), checked (rows, lanes) or null
template <bool Checked>
void add_rows(vec const (&z)[row_block][tile_vectors], query_block const& q, int row, std::int32_t per_sum, float* sums,
              [[maybe_unused]] float* checked) {
  int const count = std::min(row_block, q.rows - row);
  float* column = sums + row / per_sum * tile_tokens;
  std::int32_t left = per_sum - row % per_sum;  // rows of this sum
  for (int r = 0; r < count; ++r) {
    vec const lse = splat(q.lse[row + r]);
    vec w[tile_vectors], all = Checked ? load(checked + (row + r) * lanes) : vec{};
    unroll<tile_vectors>([&](auto v) { w[v] = z[r][v] - lse; });
    exp2(w);
    unroll<tile_vectors>([&](auto v) {
      if constexpr (Checked) all += w[v];
      store(column + v * lanes, load(column + v * lanes) + w[v]);
    });
    if constexpr (Checked) store(checked + (row + r) * lanes, all);
    if (--left == 0) left = per_sum, column += tile_tokens;
  }
}
inline void add_weights(vec const (&z)[row_block][tile_vectors], query_block const& q, int row, std::int32_t per_sum,
                        float* sums, float* checked) {
  if (checked != nullptr)
    add_rows<true>(z, q, row, per_sum, sums, checked);
  else
    add_rows<false>(z, q, row, per_sum, sums, nullptr);
}

/// Reduces (G, stride) floats over the query heads to x(0, j), j < n.  n is a multiple of lanes
inline void reduce_heads(group_reduce how, std::int32_t group, std::int64_t stride, std::int64_t n, float* x) {
  float const share = how == group_reduce::mean ? 1.0f / static_cast<float>(group) : 1.0f;
  for (std::int64_t j = 0; j < n; j += lanes) {
    vec sum = load(x + j);
    for (std::int32_t g = 1; g < group; ++g) {
      vec const next = load(x + g * stride + j);
      sum = how == group_reduce::max ? max_or_nan(sum, next) : sum + next;
    }
    store(x + j, sum * share);
  }
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
