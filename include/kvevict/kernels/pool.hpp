// SPDX-License-Identifier: Apache-2.0
// Pooling of scores along the tokens.
#pragma once

#include <algorithm>

#include <kvevict/core/fill.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/kernels/expect_window.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/kernels/simd.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

void has_kernel(pool_tag, host&);

/// Floats that pool_row needs beside a row of n.
constexpr std::int64_t pool_row_floats(std::int64_t n, std::int32_t width) { return padded(n, lanes) + width; }

/// Pools x[0, n) in place; `copy` holds pool_row_floats. Scores that are not finite become NaN, so that a maximum never
/// hides them.
inline void pool_row(pool_options const& o, float* x, std::int64_t n, float* copy) {
  std::int64_t const half = o.width / 2;
  bool const maximum = o.kind == pooling::max;
  float const outside = maximum ? -__builtin_inff() : 0.0f;
  kvevict::fill(copy, copy + half, outside);
  for (std::int64_t j = 0; j < n; j += lanes) store(copy + half + j, finite_or_nan(load_some(x + j, n - j)));
  kvevict::fill(copy + half + n, copy + pool_row_floats(n, o.width), outside);
  for (std::int64_t j = 0; j < n; j += lanes) {
    vec v = load(copy + j);
    if (maximum)
      for (std::int64_t d = 1; d < o.width; ++d) v = max_or_nan(v, load(copy + j + d));
    else
      for (std::int64_t d = 1; d < o.width; ++d) v += load(copy + j + d);
    store_some(x + j, maximum ? v : v / splat(static_cast<float>(o.width)), n - j);
  }
}

/// Σ of floats, in vectors.
inline double sum_of_floats(float const* x, std::int64_t n) {
  vec sums = {};
  std::int64_t j = 0;
  for (; j + lanes <= n; j += lanes) sums += load(x + j);
  sums += load_some(x + j, n - j);
  double sum = 0;
  for (int i = 0; i < lanes; ++i) sum += static_cast<double>(sums[i]);
  return sum;
}

/// Weights of `count` tokens, average-pooled, and scaled to the sum that they had. `copy`: pool_row_floats.
inline void pool_weights(pool_options const& o, float* x, std::int64_t count, float* copy) {
  double const before = sum_of_floats(x, count);
  pool_row(o, x, count, copy);
  double const after = sum_of_floats(x, count);
  if (after == 0) return;
  auto const share = static_cast<float>(before / after);
  for (std::int64_t j = 0; j < count; ++j) x[j] *= share;
}

/// Scratch of kernels::pool for rows of at most `tokens`.
constexpr std::int64_t pool_bytes(std::int64_t tokens, std::int32_t width, std::int64_t concurrency) {
  return concurrency * padded(pool_row_floats(tokens, width) * 4, 64);
}

/// Pools tokens [0, last) of every active row in place, or all its tokens.
///
///   max      s'(j) = max over |i − j| ≤ width/2 of s(i)          tokens outside count as −∞
///   average  s'(j) = 1/width · Σ over |i − j| ≤ width/2 of s(i)  tokens outside count as 0, the divisor stays
///
/// Shapes   scores (B·H rows, N) float.
/// Cost     width loads a token, one pass; scratch: one row per worker (pool_bytes).
/// Errors   contract_violation if the width is even, below 1 or above 65535, or rows are scattered. A score that is not
///          finite gives NaN.
inline void kernel(pool_tag, host& ctx, pool_options const& o, pool_range range, score_rows const& out) {
  expect_pooling(o);
  KVEVICT_EXPECTS(out.positions == nullptr || o.width == 1,
                  "pool: the rows are scattered, so neighbours in memory are not neighbours in the text; compact them "
                  "stably first, "
                  "or set the width to 1");
  if (o.width == 1) return;
  auto const size = [&](std::int64_t r) { return range == pool_range::all ? out.rows[r].tokens : out.rows[r].last; };
  std::int64_t longest = 0;
  for (std::int64_t r = 0; r < out.count(); ++r) longest = std::max<std::int64_t>(longest, size(r));
  kvevict::frame f(ctx.scratch());
  std::int64_t const share = padded(pool_row_floats(longest, o.width), 16);
  float* const copies = f.allocate<float>(share * ctx.concurrency());
  ctx.for_each(
      out.count(),
      [&](std::int64_t r, std::int32_t slot) {
        if (out.rows[r].active) pool_row(o, out.values + out.begin[r], size(r), copies + slot * share);
      },
      out.begin[out.count()] * o.width / 8);
}
inline void kernel(pool_tag, host& ctx, pool_options const& o, score_rows const& out) {
  kernel(pool_tag{}, ctx, o, pool_range::evictable, out);
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
