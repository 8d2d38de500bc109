// SPDX-License-Identifier: Apache-2.0
// Outputs of a block of window rows, and how far the values of a tile of tokens are from them.
//
//   outputs  (rows/row_block, wide/lanes, row_block, lanes) floats, wide = channels padded to tile_tokens
#pragma once

#include <algorithm>

#include <kvevict/core/fill.hpp>
#include <kvevict/kernels/tile.hpp>
#include <kvevict/kernels/weight_blocks.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

/// Σ_j weight_j·v_j of the rows of a block.
struct row_outputs {
  float* values;       // see above
  std::int64_t width;  // channels of a value

  static constexpr std::int64_t wide(std::int64_t width) { return padded(width, tile_tokens); }
  static constexpr std::int64_t floats(std::int64_t width) { return weight_block::most_rows * wide(width); }
  float* block(std::int32_t row) const { return values + row * wide(width); }
};

/// Values of up to tile_tokens tokens from `first`, as they are: (tokens, wide), zeros behind the last channel and the
/// last token.
template <class Entry>
void read_values(layer_view<Entry> const& view, component const& c, row const& in, std::int64_t first, float* to) {
  auto const width = static_cast<std::int32_t>(c.width());
  auto const count = static_cast<int>(std::min<std::int64_t>(tile_tokens, in.tokens - first));
  std::int64_t const wide = row_outputs::wide(width);
  bool const whole = c.rows.n_runs == 1 && width == wide && !c.is_quantised();  // then only missing tokens are zeros
  kvevict::fill(to + (whole ? count * wide : 0), to + tile_tokens * wide, 0.0f);
  if (c.is_quantised()) {
    row_code const code(c);
    coded_rows<Entry> const rows(view, c, in.sequence, in.head);
    for (int j = 0; j < count; ++j)
      for (std::int32_t d = 0; d < width; d += most_block)
        code.decode(rows(first + j), d, std::min(most_block, width - d), to + j * wide + d);
    return;
  }
  std::byte const* rows[tile_tokens];
  row_addresses(view, c, in.sequence, in.head, first, count, count, rows);
  with_type(c.type, [&](auto type) {
    for (int j = 0; j < count; ++j)
      for (std::int32_t d = 0; d < width; d += lanes)
        store(to + j * wide + d, read_chunk<decltype(type)>(rows[j], c.rows, d, width));
  });
}

/// Values of tokens that no row of the block attends to count as zeros, whatever lies there.
inline void leave_out_unseen(weight_block const& of, std::int64_t first, std::int64_t wide, float* values) {
  for (int v = 0; v < tile_tokens; v += lanes) {
    ivec seen = load(of.row(0) + first + v) != 0.0f;
    for (std::int32_t i = 1; i < of.rows; ++i) seen |= load(of.row(i) + first + v) != 0.0f;
    for (int j = 0; j < lanes; ++j)
      if (seen[j] == 0) kvevict::fill_n(values + (v + j) * wide, wide, 0.0f);
  }
}

/// Adds weights (row_block, tile_tokens) · values (tile_tokens, a strip of tile_tokens channels) to a strip of outputs.
inline void add_products(float const* weights, std::int64_t stride, float const* values, std::int64_t wide,
                         float* strip) {
  vec sum[row_block][tile_vectors];
  unroll<tile_vectors>(
      [&](auto v) { unroll<row_block>([&](auto r) { sum[r][v] = load(strip + (v * row_block + r) * lanes); }); });
  for (int j = 0; j < tile_tokens; ++j, values += wide) {
    vec x[tile_vectors];
    unroll<tile_vectors>([&](auto v) { x[v] = load(values + v * lanes); });
    unroll<row_block>([&](auto r) {
      vec const w = splat(weights[r * stride + j]);
      unroll<tile_vectors>([&](auto v) { sum[r][v] = multiply_add(w, x[v], sum[r][v]); });
    });
  }
  unroll<tile_vectors>(
      [&](auto v) { unroll<row_block>([&](auto r) { store(strip + (v * row_block + r) * lanes, sum[r][v]); }); });
}

/// The outputs of a block's rows. `memory`: tile_tokens·wide floats.
template <class Entry>
void add_up_values(layer_view<Entry> const& view, component const& c, row const& in, weight_block const& of,
                   row_outputs const& to, float* memory) {
  std::int64_t const wide = row_outputs::wide(to.width);
  kvevict::fill_n(to.values, padded(of.rows, row_block) * wide, 0.0f);
  for (std::int64_t t = 0; t < in.tokens; t += tile_tokens) {
    read_values(view, c, in, t, memory);
    leave_out_unseen(of, t, wide, memory);
    for (std::int32_t i = 0; i < of.rows; i += row_block)
      for (std::int64_t d = 0; d < wide; d += tile_tokens)
        add_products(of.row(i) + t, of.stride, memory + d, wide, to.block(i) + d * row_block);
  }
}

/// ‖v_j − o_i‖² of one block of rows and a tile of values, as pack_tokens makes it. Differences are squared, not
/// ‖v‖² − 2v·o + ‖o‖², which leaves nothing where v ≈ o.  → (row_block, tile_tokens)
inline void squared_distances(float const* outputs, float const* tile, std::int64_t width,
                              float (&to)[row_block][tile_tokens]) {
  vec sum[row_block][tile_vectors] = {};
  for (std::int64_t d = 0; d < width; d += lanes, outputs += row_block * lanes)
    for (int i = 0; i < lanes; ++i, tile += tile_tokens) {
      vec x[tile_vectors];
      unroll<tile_vectors>([&](auto v) { x[v] = load(tile + v * lanes); });
      unroll<row_block>([&](auto r) {
        vec const o = splat(outputs[r * lanes + i]);
        unroll<tile_vectors>([&](auto v) { sum[r][v] = multiply_add(x[v] - o, x[v] - o, sum[r][v]); });
      });
    }
  std::memcpy(to, sum, sizeof to);
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
