// SPDX-License-Identifier: Apache-2.0
// Scratch of the host kernels for a shape, found like the kernels themselves: kernels::f.bytes(ctx, shape, options).
#pragma once

#include <algorithm>
#include <cstdint>

#include <kvevict/core/shape.hpp>
#include <kvevict/kernels/attention_rows.hpp>
#include <kvevict/kernels/column_sums.hpp>
#include <kvevict/kernels/count_best.hpp>
#include <kvevict/kernels/gate.hpp>
#include <kvevict/kernels/pool.hpp>
#include <kvevict/kernels/require_finite.hpp>
#include <kvevict/kernels/select_best.hpp>
#include <kvevict/kernels/window_scores.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {
// With or without an LSE, whichever takes more; softmax rows take two rows of floats a worker.

inline std::int64_t workspace(pool_tag, host const& ctx, cache_shape const& s, pool_options const& o) {
  return o.width == 1 ? 0 : pool_bytes(s.tokens, o.width, ctx.concurrency());
}
inline window_shape largest_window(cache_shape const& s, window_options const& o, bool apart, bool normalised) {
  // rows that are tokens of the cache are no more than those, rows that come after it may be
  auto const window = static_cast<std::int32_t>(
      o.place == row_place::behind_cache ? std::int64_t{o.rows} : std::min<std::int64_t>(o.rows, s.tokens));
  return {
      s.q_heads / s.kv_heads, window, s.head_dim, o.pool_before_group.width, s.tokens, normalised, apart, s.kv_heads};
}
inline std::int64_t window_bytes(host const& ctx, cache_shape const& s, window_options const& o, bool apart) {
  return std::max({window_scores_bytes(s.rows(), largest_window(s, o, apart, false), ctx.concurrency()),
                   window_scores_bytes(s.rows(), largest_window(s, o, apart, true), ctx.concurrency()),
                   softmax_rows_bytes(s.tokens, ctx.concurrency())});
}
inline std::int64_t workspace(window_scores_tag, host const& ctx, cache_shape const& s, window_options const& o) {
  return std::max(window_bytes(ctx, s, o, false), workspace(pool_tag{}, ctx, s, o.pool));
}
inline std::int64_t workspace(window_weights_tag, host const& ctx, cache_shape const& s, window_options const& o) {
  return std::max(window_bytes(ctx, s, o, true), require_finite_bytes(s.rows()));
}
inline std::int64_t workspace(column_sums_tag, host const& ctx, cache_shape const& s) {
  std::int64_t bytes = softmax_rows_bytes(s.tokens, ctx.concurrency());
  for (bool const normalised : {false, true}) {
    column_shape const shape{s.q_heads / s.kv_heads, s.head_dim, s.tokens, normalised};
    bytes = std::max(bytes, column_sums_bytes(s.rows(), s.rows() * s.tokens, shape, ctx.concurrency()));
  }
  return bytes;
}
inline std::int64_t workspace(require_finite_tag, host const&, cache_shape const& s) {
  return require_finite_bytes(s.rows());
}
/// A pool over layers has at most all rows.
inline std::int64_t workspace(count_pooled_tag, host const&, cache_shape const& s, pool_over over = pool_over::heads) {
  std::int64_t const rows = over == pool_over::heads ? s.kv_heads : s.rows();
  return count_pooled_bytes(rows, rows * s.tokens);
}
inline std::int64_t workspace(gate_tag, host const& ctx, cache_shape const& s, gate_weights const& w) {
  std::int64_t const tokens = s.sequences * s.tokens,
                     tiles = s.sequences * ((s.tokens + tile_tokens - 1) / tile_tokens);
  return gate_shape{w.features, w.width(), w.flags, tokens, tiles}.bytes(ctx.concurrency());
}
inline std::int64_t workspace(select_best_tag, host const& ctx, cache_shape const& s) {
  return select_best_bytes(s.rows(), s.tokens, ctx.concurrency());
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
