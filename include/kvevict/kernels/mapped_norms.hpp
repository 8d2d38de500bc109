// SPDX-License-Identifier: Apache-2.0
// ‖M·x‖² of every token, of numbers that a function gives, M a small matrix of each row.
#pragma once

#include <algorithm>

#include <kvevict/core/fill.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/kernels/matrix.hpp>
#include <kvevict/kernels/tile_tokens.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

void has_kernel(mapped_norms_tag, host&);

/// The numbers of up to tile_tokens tokens from `first`, a column each; zeros where there is none.  → (D, tile_tokens)
template <class F>
[[gnu::noinline]] void fill_columns(F const& f, row const& in, std::int64_t first, std::int32_t width, float* to) {
  for (std::int32_t t = 0; t < tile_tokens; ++t)
    for (std::int32_t c = 0; c < width; c += row_chunk) {
      float x[row_chunk] = {};
      if (first + t < in.tokens) f(in, first + t, c, x);
      for (std::int32_t i = 0; i < row_chunk && c + i < width; ++i) to[(c + i) * tile_tokens + t] = x[i];
    }
}

/// Adds the squares of M·tile, M with zeros above the diagonal.
inline void add_squares(float const* m, std::int32_t width, float const* tile, vec (&norms)[tile_vectors]) {
  for (std::int32_t i = 0; i < width; i += row_block) {
    vec sum[row_block][tile_vectors] = {};
    std::int32_t const end = std::min(i + row_block, width);
    for (std::int32_t d = 0; d < end; ++d) {
      vec x[tile_vectors];
      unroll<tile_vectors>([&](auto v) { x[v] = load(tile + d * tile_tokens + v * lanes); });
      unroll<row_block>([&](auto r) {
        vec const y = splat(m[std::int64_t{std::min(i + r, width - 1)} * width + d]);
        unroll<tile_vectors>([&](auto v) { sum[r][v] = multiply_add(y, x[v], sum[r][v]); });
      });
    }
    for (std::int32_t r = 0; i + r < end; ++r)
      for (int v = 0; v < tile_vectors; ++v) norms[v] = multiply_add(sum[r][v], sum[r][v], norms[v]);
  }
}

/// values[j] = ‖M_r·f(row r, j)‖² of every token of the active rows, M lower triangular.
///
/// Shapes   f as for gram: (B·H rows, N, D); M (B·H, D, D), zeros above the diagonal, 1 ≤ D ≤ 256 → scores (B·H, N).
/// Cost     N·D² flop a row; scratch 24·D floats a worker (AVX-512: 48·D). No bit depends on threads, pages or layout.
/// Errors   contract_violation: a width out of range.
template <class F>
void kernel(mapped_norms_tag, host& ctx, score_rows const& out, std::int32_t width, F const& f, float const* m) {
  expect_matrix("mapped_norms", width);
  std::int64_t const tiles = (out.most_tokens + tile_tokens - 1) / tile_tokens,
                     share = std::int64_t{width} * tile_tokens;
  frame scratch(ctx.scratch());
  auto* const columns = scratch.allocate<float>(ctx.concurrency() * share);
  ctx.for_each(
      out.count() * tiles,
      [&](std::int64_t i, std::int32_t slot) {
        std::int64_t const r = i / tiles, first = i % tiles * tile_tokens;
        row const& it = out.rows[r];
        if (!it.active || first >= it.tokens) return;
        float x[tile_tokens];
        vec norms[tile_vectors] = {};
        fill_columns(f, it, first, width, columns + slot * share);
        add_squares(m + r * width * width, width, columns + slot * share, norms);
        for (int v = 0; v < tile_vectors; ++v) store(x + v * lanes, norms[v]);
        kvevict::copy_n(x, std::min<std::int64_t>(tile_tokens, it.tokens - first), out.values + out.begin[r] + first);
      },
      out.total_floats * width);
}
inline std::int64_t workspace(mapped_norms_tag, host const& ctx, cache_shape const& s) {
  return scratch_step(std::int64_t{ctx.concurrency()} * s.head_dim * tile_tokens * 4);
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
