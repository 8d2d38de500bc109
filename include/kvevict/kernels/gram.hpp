// SPDX-License-Identifier: Apache-2.0
// The Gram matrix of the tokens of each row, of numbers that a function gives for every token.
#pragma once

#include <algorithm>

#include <kvevict/core/fill.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/kernels/matrix.hpp>
#include <kvevict/kernels/simd.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

void has_kernel(gram_tag, host&);

inline constexpr std::int64_t gram_tile = 64;  // tokens whose products are added up in float

constexpr std::int64_t gram_stride(std::int64_t width) { return padded(width, 2 * lanes); }

/// The numbers of tokens [first, first + count), a line each, zeros behind the width.  → (count, stride)
template <class F>
[[gnu::noinline]] void fill_lines(F const& f, row const& in, std::int64_t first, std::int64_t count, std::int32_t width,
                                  float* to) {
  auto const stride = static_cast<std::int32_t>(gram_stride(width));
  for (std::int64_t t = 0; t < count; ++t, to += stride)
    for (std::int32_t c = 0; c < stride; c += row_chunk) {
      float x[row_chunk] = {};
      if (c < width) f(in, first + t, c, x);
      for (std::int32_t i = 0; i < row_chunk; ++i) to[c + i] = c + i < width ? x[i] : 0.0f;
    }
}

/// The products of a tile's lines, added to what is on and below the diagonal.
inline void add_products(float const* tile, std::int64_t count, std::int32_t width, double* out) {
  constexpr int abreast = 4;
  std::int64_t const stride = gram_stride(width);
  for (std::int32_t i = 0; i < width; i += abreast)
    for (std::int32_t k = 0; k < std::min(i + abreast, width); k += 2 * lanes) {
      vec sum[abreast][2] = {};
      for (float const *line = tile, *const end = tile + count * stride; line != end; line += stride) {
        vec const a = load(line + k), b = load(line + k + lanes);
        unroll<abreast>([&](auto r) {
          vec const x = splat(line[i + r]);
          sum[r][0] = multiply_add(x, a, sum[r][0]), sum[r][1] = multiply_add(x, b, sum[r][1]);
        });
      }
      for (std::int32_t r = 0; r < abreast && i + r < width; ++r)
        for (std::int32_t c = 0; c < 2 * lanes && k + c <= i + r; ++c)
          out[std::int64_t{i + r} * width + k + c] += static_cast<double>(sum[r][c / lanes][c % lanes]);
    }
}

/// Σ over the tokens of each active row of the outer product of their numbers.
///
///   out(r,a,b) = Σ_j f(row r, j)[a] · f(row r, j)[b]        a ≥ b; what is above the diagonal is not written
///
/// f(row, token, first, x) writes channels [first, first + row_chunk) to x, as for row_sums.
/// Shapes   f: (B·H rows, N, D) → out (B·H, D, D) in the context's memory, 1 ≤ D ≤ 256.
/// Cost     N·D² flop a row, one call of f a token and chunk; scratch 64·D floats a worker. Tiles of tokens in float
///          are added up in double, in the order of tokens, so that no bit depends on threads, page size or layout.
/// Errors   contract_violation: a width out of range.
template <class F> void kernel(gram_tag, host& ctx, score_rows const& in, std::int32_t width, F const& f, double* out) {
  expect_matrix("gram", width);
  std::int64_t const share = gram_tile * gram_stride(width);
  frame scratch(ctx.scratch());
  auto* const tiles = scratch.allocate<float>(ctx.concurrency() * share);
  ctx.for_each(
      in.count(),
      [&](std::int64_t r, std::int32_t slot) {
        row const& it = in.rows[r];
        if (!it.active) return;
        double* const to = out + r * width * width;
        kvevict::fill_n(to, std::int64_t{width} * width, 0.0);
        for (std::int64_t first = 0; first < it.tokens; first += gram_tile) {
          std::int64_t const count = std::min(gram_tile, it.tokens - first);
          fill_lines(f, it, first, count, width, tiles + slot * share);
          add_products(tiles + slot * share, count, width, to);
        }
      },
      in.total_floats * width);
}
inline std::int64_t workspace(gram_tag, host const& ctx, cache_shape const& s) {
  return scratch_step(ctx.concurrency() * gram_tile * gram_stride(s.head_dim) * 4);
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
