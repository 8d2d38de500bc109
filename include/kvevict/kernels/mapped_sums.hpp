// SPDX-License-Identifier: Apache-2.0
// Σ over the lines of a small matrix of what a token makes of each, of numbers that a function gives.
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

void has_kernel(mapped_sums_tag, host&);

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

/// Lines [i, i + row_block) up to channel `end`, the last one again behind it.  → (row_block, D)
template <class Map>
[[gnu::noinline]] void copy_lines(Map const& map, row const& in, std::int64_t r, std::int64_t i, std::int32_t end,
                                  float* to) {
  for (std::int32_t b = 0; b < row_block; ++b)
    for (std::int32_t d = 0; d < end; ++d)
      to[b * map.width + d] = map.at(in, r, std::min<std::int64_t>(i + b, map.lines() - 1), d);
}

template <mapped_term Term> vec add_term(vec sum, vec y, vec x) {
  if constexpr (Term == mapped_term::square) return multiply_add(y, y, sum);
  if constexpr (Term == mapped_term::product) return multiply_add(x, y, sum);
  if constexpr (Term == mapped_term::size) return sum + (y < 0.0f ? -y : y);
}

/// Adds what the tokens of a tile make of all lines. `room`: (row_block, D).
template <class Map>
void add_terms(Map const& map, row const& in, std::int64_t r, float const* tile, float* room,
               vec (&sums)[tile_vectors]) {
  for (std::int64_t i = 0; i < map.lines(); i += row_block) {
    vec y[row_block][tile_vectors] = {};
    auto const count = static_cast<std::int32_t>(std::min<std::int64_t>(row_block, map.lines() - i)),
               end = Map::triangular ? static_cast<std::int32_t>(i) + count : map.width;
    copy_lines(map, in, r, i, end, room);
    for (std::int32_t d = 0; d < end; ++d) {
      vec x[tile_vectors];
      unroll<tile_vectors>([&](auto v) { x[v] = load(tile + d * tile_tokens + v * lanes); });
      unroll<row_block>([&](auto b) {
        vec const m = splat(room[b * map.width + d]);
        unroll<tile_vectors>([&](auto v) { y[b][v] = multiply_add(m, x[v], y[b][v]); });
      });
    }
    for (std::int32_t b = 0; b < count; ++b)
      for (int v = 0; v < tile_vectors; ++v) {
        float const* const own = tile + (Map::triangular ? (i + b) * tile_tokens : 0) + v * lanes;
        sums[v] = add_term<Map::term>(sums[v], y[b][v], load(own));
      }
  }
}

/// values[j] = Σ_i term( (M_r·x)_i, x_i ), x = f(row r, j), of every token of the active rows, i over the lines of M.
///
/// The map says `width` D, `lines()`, `at(row, r, i, d)`, which term it is (mapped_term) and whether it is triangular:
/// then it has D lines, and zeros above the diagonal.
/// Shapes   f as for gram: (B·H rows, N, D), 1 ≤ D ≤ 256 → scores (B·H, N).
/// Cost     2·N·D flop a line, half of that if triangular; scratch 28·D floats a worker (AVX-512: 56·D). No bit depends
///          on threads, pages or layout.
/// Errors   contract_violation: a width out of range.
template <class Map, class F>
void kernel(mapped_sums_tag, host& ctx, score_rows const& out, Map const& map, F const& f) {
  expect_matrix("mapped_sums", map.width);
  std::int64_t const tiles = (out.most_tokens + tile_tokens - 1) / tile_tokens,
                     share = std::int64_t{map.width} * (tile_tokens + row_block);
  frame scratch(ctx.scratch());
  auto* const columns = scratch.allocate<float>(ctx.concurrency() * share);
  ctx.for_each(
      out.count() * tiles,
      [&](std::int64_t i, std::int32_t slot) {
        std::int64_t const r = i / tiles, first = i % tiles * tile_tokens;
        row const& it = out.rows[r];
        if (!it.active || first >= it.tokens) return;
        float x[tile_tokens], *const tile = columns + slot * share;
        vec sums[tile_vectors] = {};
        fill_columns(f, it, first, map.width, tile);
        add_terms(map, it, r, tile, tile + std::int64_t{map.width} * tile_tokens, sums);
        for (int v = 0; v < tile_vectors; ++v) store(x + v * lanes, sums[v]);
        kvevict::copy_n(x, std::min<std::int64_t>(tile_tokens, it.tokens - first), out.values + out.begin[r] + first);
      },
      out.total_floats * map.lines());
}
inline std::int64_t workspace(mapped_sums_tag, host const& ctx, cache_shape const& s) {
  return scratch_step(std::int64_t{ctx.concurrency()} * s.head_dim * (tile_tokens + row_block) * 4);
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
