// SPDX-License-Identifier: Apache-2.0
// How unevenly the channels of a token lie in their ranges over the tokens of the next group.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include <kvevict/core/contract.hpp>
#include <kvevict/core/fill.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/core/token_groups.hpp>
#include <kvevict/kernels/float_rows.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

void has_kernel(channel_spreads_tag, host&);

/// Of every channel the least and the largest number of some tokens; then what brings them to −½ and ½.
struct channel_ranges {
  float* memory;  // (3, stride)
  std::int32_t width;

  static constexpr float largest = std::numeric_limits<float>::max();
  static constexpr std::int64_t floats(std::int64_t width) { return 3 * padded(width, lanes); }
  float* low() const { return memory; }
  float* high() const { return memory + padded(width, lanes); }
  float* scale() const { return high(); }
  float* centre() const { return memory + 2 * padded(width, lanes); }

  void begin() const {
    kvevict::fill(low(), high(), __builtin_inff());
    kvevict::fill(high(), centre(), -__builtin_inff());
  }
  /// A channel that is constant comes to −½ with every token; one behind the width to 0.
  void finish() const {
    for (std::int32_t d = 0; d < padded(width, lanes); ++d) {
      float const range = high()[d] - low()[d], inverse = 1 / range;
      // 1/range may be infinite, and 0 times it is no number
      scale()[d] = range == 0 ? 0.0f : inverse < largest ? inverse : largest;
      centre()[d] = d < width ? -0.5f : 0.0f;
    }
  }
};

/// Widens the ranges to those of `count` tokens.
template <class Rows> [[gnu::noinline]] void widen_ranges(Rows rows, int count, channel_ranges of) {
  constexpr int N = rows_abreast;
  for (int i = 0; i < count; i += N) {
    rows.all.fetch_ahead(i);
    rows.visit(
        i, [&](std::int32_t d, vec const(&x)[N]) __attribute__((always_inline)) {
          vec low = load(of.low() + d), high = load(of.high() + d), zero = splat(0);  // NaN, where x is not finite
          unroll<N>(
              [&](auto k) { low = min(x[k], low), high = max(x[k], high), zero = multiply_add(x[k], splat(0), zero); });
          store(of.low() + d, low + zero), store(of.high() + d, high + zero);
        });
  }
}

/// Standard deviations over the channels of `count` tokens.
template <class Rows> [[gnu::noinline]] void spread_rows(Rows rows, int count, channel_ranges of, float* to) {
  constexpr int N = rows_abreast;
  auto const n = static_cast<float>(of.width);
  for (int i = 0; i < count; i += N) {
    vec sum[N] = {}, squares[N] = {};
    rows.visit(
        i, [&](std::int32_t d, vec const(&x)[N]) __attribute__((always_inline)) {
          vec const low = load(of.low() + d), scale = load(of.scale() + d), centre = load(of.centre() + d);
          unroll<N>([&](auto k) {
            vec const y = multiply_add(x[k] - low, scale, centre);  // around 0, so that squares lose little
            sum[k] += y, squares[k] = multiply_add(y, y, squares[k]);
          });
        });
    vec a[N], b[N];
    unroll<N>([&](auto k) { a[k] = sum[k], b[k] = squares[k]; });
    vec const total = reduce<N>(a, add{}),
              variance = max(splat(0), multiply_add(total * splat(-1 / n), total, reduce<N>(b, add{})) *
                                           splat(n > 1 ? 1 / (n - 1) : 1.0f));
    float squared[lanes];
    store(squared, variance);
    for (int k = 0; k < std::min(N, count - i); ++k) to[i + k] = ::sqrtf(squared[k * (lanes / N)]);
  }
}

/// f(tokens [first, first + count)) of a group, count ≤ tokens_abreast.
template <class F> void each_block_of(token_groups const& groups, std::int64_t g, F&& f) {
  std::int64_t const end = groups.begin(g + 1);
  for (std::int64_t first = groups.begin(g); first < end; first += tokens_abreast)
    f(first, static_cast<int>(std::min<std::int64_t>(tokens_abreast, end - first)));
}

/// σ over the channels of every token that a whole group follows, each channel relative to its range there.
///
///   s(r,j) = standard deviation (÷ D−1) over d of ( x(r,j,d) − min_d ) / ( max_d − min_d ),   min and max over the
///   group after j's; a channel that is constant there counts as 0. Other tokens' scores are left as they are.
///
/// Shapes   elements (H,N,D) as with_elements gives them, floats or quantised → scores (B·H rows, N).
/// Cost     one read of the elements from memory, and one from the cache that a group fits into; scratch 43·D floats a
///          worker. No bit depends on threads, page size or layout.
/// Errors   contract_violation: groups of no size. What is not finite makes what is compared with it no number.
template <class Elements>
void kernel(channel_spreads_tag, host& ctx, score_rows const& out, token_groups const& groups, Elements const& of) {
  KVEVICT_EXPECTS(groups.size >= 1, "channel_spreads: groups of ", groups.size, " tokens; give 1 or more");
  auto const D = static_cast<std::int32_t>(of.of.width());
  using rows_of = decltype(float_rows(of, static_cast<float*>(nullptr)));
  std::int64_t const of_ranges = padded(channel_ranges::floats(D), 16), share = of_ranges + rows_of::floats(D),
                     run = std::max<std::int64_t>(1, 1024 / groups.size),  // groups, of which one more is read
      runs = (groups.count(out.most_tokens) + run - 1) / run;
  frame scratch(ctx.scratch());
  float* const memory = scratch.allocate<float>(ctx.concurrency() * share);
  ctx.for_each(
      out.count() * runs,
      [&](std::int64_t i, std::int32_t slot) {
        std::int64_t const r = i / out.heads / runs * out.heads + i % out.heads, begin = i / out.heads % runs * run;
        row const& in = out.rows[r];
        channel_ranges const ranges{memory + slot * share, D};
        rows_of rows(of, ranges.memory + of_ranges);
        for (std::int64_t g = begin; in.active && g < begin + run && groups.is_followed(g, in.tokens); ++g) {
          ranges.begin();
          each_block_of(groups, g + 1, [&](std::int64_t first, int count) {
            rows.go_to(in, first, count);
            rows.with_rows([&](auto of_type) { widen_ranges(of_type, count, ranges); });
          });
          ranges.finish();
          each_block_of(groups, g, [&](std::int64_t first, int count) {
            rows.go_to(in, first, count);
            rows.with_rows([&](auto of_type) { spread_rows(of_type, count, ranges, out.scores(r).data + first); });
          });
        }
      },
      out.total_floats * D / 4);
}
inline std::int64_t workspace(channel_spreads_tag, host const& ctx, cache_shape const& s) {
  std::int64_t const share =
      padded(channel_ranges::floats(s.head_dim), 16) + float_rows<std::int32_t>::floats(s.head_dim);
  return scratch_step(ctx.concurrency() * share * 4);
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
