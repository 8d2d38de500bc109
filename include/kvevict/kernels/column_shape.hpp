// SPDX-License-Identifier: Apache-2.0
// The scratch of column sums, and the sizes of its blocks.
#pragma once

#include <algorithm>
#include <cstdint>

#include <kvevict/kernels/window_rows.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

inline constexpr int strip_tokens = 384;  // a strip of columns meets one block of query rows after the other
inline constexpr int strip_tiles = strip_tokens / tile_tokens;
static_assert(strip_tokens % tile_tokens == 0);

/// Scratch of one worker, in order: a block of queries, a strip of keys, then sums of a block (float) and of all blocks
/// (double) per query head and a vector of each row's weights, or every query row's maximum and sum.
struct column_shape {
  std::int32_t group, head_dim;
  std::int64_t tokens;  // longest row
  bool normalised;      // the engine's LSE is used

  // query tokens a block, of all G heads
  constexpr std::int32_t block_tokens() const { return std::max(8, 128 / group); }
  constexpr std::int64_t query_floats() const {
    return padded(query_block_floats(std::int64_t{group} * block_tokens(), head_dim), 16);
  }
  constexpr std::int64_t strip_floats() const { return strip_tiles * tile_floats(head_dim); }
  constexpr std::int64_t column_floats() const { return std::int64_t{group} * strip_tokens; }
  constexpr std::int64_t block_rows() const { return padded(std::int64_t{group} * block_tokens(), row_block); }
  constexpr std::int64_t sum_floats() const {
    return std::max(3 * column_floats() + (normalised ? block_rows() * lanes : 0), 2 * block_rows());
  }
  constexpr std::int64_t share_floats() const { return padded(query_floats() + strip_floats() + sum_floats(), 16); }
};

/// Scratch of column_sums for `total` tokens over all rows (b, h): of each of their query rows an LSE, or the sum of
/// its weights; and what it sees.
constexpr std::int64_t column_sums_bytes(std::int64_t rows, std::int64_t total, column_shape const& s,
                                         std::int64_t concurrency) {
  return concurrency * s.share_floats() * 4 + padded(total * s.group * (s.normalised ? 8 : 4), 64) +
         padded(rows * static_cast<std::int64_t>(sizeof(window_rows)), 64) +
         total * static_cast<std::int64_t>(sizeof(sight)) + rows * 64;
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
