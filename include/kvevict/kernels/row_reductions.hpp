// SPDX-License-Identifier: Apache-2.0
// Sums, maxima and minima over the tokens of each row, of numbers that a function gives for every token.
#pragma once

#include <algorithm>
#include <limits>
#include <type_traits>

#include <kvevict/cache/row_reader.hpp>
#include <kvevict/core/contract.hpp>
#include <kvevict/core/fill.hpp>
#include <kvevict/core/token_groups.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

void has_kernel(row_sums_tag, host&);
void has_kernel(row_max_tag, host&);
void has_kernel(row_min_tag, host&);

// How two numbers become one, and what no number is. NaN stays NaN.
struct sum_of_two {
  static constexpr float none = 0;
  KVEVICT_HOST_DEVICE constexpr float operator()(float a, float b) const { return a + b; }
};
struct larger_of_two {
  static constexpr float none = -std::numeric_limits<float>::infinity();
  KVEVICT_HOST_DEVICE constexpr float operator()(float a, float b) const { return larger_or_nan(b, a); }
};
struct smaller_of_two {
  static constexpr float none = std::numeric_limits<float>::infinity();
  KVEVICT_HOST_DEVICE constexpr float operator()(float a, float b) const { return -larger_or_nan(-b, -a); }
};

/// How many numbers a call of F gives: f(row, token) returns one; f(row, token, first, x) writes those of channels
/// [first, first + row_chunk) to x.
template <class F>
inline constexpr std::int32_t numbers_of =
    std::is_invocable_r_v<float, F const&, row const&, std::int64_t> ? 1 : row_chunk;

template <class F>
[[gnu::always_inline]] KVEVICT_HOST_DEVICE inline void numbers_at(F const& f, row const& in, std::int64_t token,
                                                                  std::int32_t first, float (&x)[numbers_of<F>]) {
  if constexpr (numbers_of<F> == 1)
    x[0] = f(in, token);
  else
    f(in, token, first, x);
}

template <class F> void expect_reduction(token_groups const& groups, std::int32_t width) {
  static_assert(
      numbers_of<F> == 1 || std::is_invocable_v<F const&, row const&, std::int64_t, std::int32_t, float(&)[row_chunk]>,
      "row_sums, row_max, row_min: f is called as f(row, token) → float, or as f(row, token, first, x) with "
      "float (&x)[row_chunk]");
  KVEVICT_EXPECTS(width >= 1 && (width == 1 || numbers_of<F> != 1), "row_sums: a width of ", width,
                  "; f(row, token) gives one number, a function of several channels has 1 or more");
  KVEVICT_EXPECTS(groups.first >= 0 && groups.size >= 0, "row_sums: groups of ", groups.size, " tokens from token ",
                  groups.first, " on; neither may be negative");
}

inline constexpr std::int64_t reduction_tile = 64;  // tokens that are added up before they meet the others

/// Tokens in order. Never part of a caller that has just multiplied: products are rounded before they are added, in
/// every layout.
template <class Two, int N>
[[gnu::noinline]] void reduce_tile(float const (*x)[N], std::int64_t tokens, float (&to)[N]) {
  for (float& sum : to) sum = Two::none;
  for (std::int64_t j = 0; j < tokens; ++j)
    for (int i = 0; i < N; ++i) to[i] = Two{}(to[i], x[j][i]);
}

template <class Two, class F>
void reduce_group(score_rows const& in, std::int64_t r, token_groups const& groups, std::int64_t g, std::int32_t width,
                  F const& f, float* out) {
  constexpr std::int32_t n = numbers_of<F>;
  row const& it = in.rows[r];
  kvevict::fill_n(out, width, Two::none);
  std::int64_t const end = groups.end(g, it.tokens);
  for (std::int64_t first = groups.first_tile(in, r, g, reduction_tile); first < end; first += reduction_tile)
    for (std::int32_t c = 0; c < width; c += n) {
      float x[reduction_tile][n], sum[n];
      std::int64_t count = 0;
      for (std::int64_t j = first; j < std::min(end, first + reduction_tile); ++j)
        if (groups.reads(in, r, j)) numbers_at(f, it, j, c, x[count++]);
      reduce_tile<Two>(x, count, sum);
      for (std::int32_t i = 0; i < n && c + i < width; ++i) out[c + i] = Two{}(out[c + i], sum[i]);
    }
}

template <class Two, class F>
void reduce(host& ctx, score_rows const& in, token_groups const& groups, std::int32_t width, F const& f, float* out) {
  expect_reduction<F>(groups, width);
  std::int64_t const count = groups.count(in.most_tokens);
  ctx.for_each(
      in.count() * count,
      [&](std::int64_t i, std::int32_t) {
        if (in.rows[i / count].active) reduce_group<Two>(in, i / count, groups, i % count, width, f, out + i * width);
      },
      in.total_floats * width);
}

/// Σ over the tokens of each group of each active row, for every channel.
///
///   out(r,g,c) = Σ_{j in group g} f(row r, j)[c]        row_max, row_min: the largest, the smallest; NaN if one is
///
/// f(row, token) returns a float, or f(row, token, first, x) writes channels [first, first + row_chunk) to x; those at
/// `width` and behind are ignored. It is KVEVICT_HOST_DEVICE and holds pointers and views by value.
/// Shapes   f: (B·H rows, N, C) → out (B·H, G, C) in the context's memory, C = width, G = groups.count(most_tokens).
///          Groups without a token hold 0, −∞, +∞; rows that are not active are not written.
/// Cost     one call of f a token and chunk; no scratch on the host. Sums are of tiles of tokens that begin at the
///          group's first, in the order of tokens, so that no bit depends on threads, page size or layout.
/// Errors   contract_violation: a width below 1, or above 1 with an f of one number; negative groups.
template <class F>
void kernel(row_sums_tag, host& ctx, score_rows const& in, token_groups const& groups, std::int32_t width, F const& f,
            float* out) {
  reduce<sum_of_two>(ctx, in, groups, width, f, out);
}
template <class F>
void kernel(row_max_tag, host& ctx, score_rows const& in, token_groups const& groups, std::int32_t width, F const& f,
            float* out) {
  reduce<larger_of_two>(ctx, in, groups, width, f, out);
}
template <class F>
void kernel(row_min_tag, host& ctx, score_rows const& in, token_groups const& groups, std::int32_t width, F const& f,
            float* out) {
  reduce<smaller_of_two>(ctx, in, groups, width, f, out);
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
