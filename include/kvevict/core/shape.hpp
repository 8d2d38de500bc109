// SPDX-License-Identifier: Apache-2.0
// Sizes of the largest call that scratch must serve.
#pragma once

#include <cstdint>

namespace kvevict {
inline namespace v0 {

/// One layer of a batch. `pool_pages` and `table_pages` (entries over all rows) are read by the checks of the view; 0 for contiguous caches. Of a stack
/// of layers `sequences` and both counts are those of all layers together.
struct cache_shape {
  std::int32_t sequences = 1, q_heads = 1, kv_heads = 1, head_dim = 128;
  std::int64_t tokens = 0;  // of the longest row
  std::int64_t table_pages = 0, pool_pages = 0;

  constexpr std::int64_t rows() const { return std::int64_t{sequences} * kv_heads; }
};

/// Scratch is taken in steps of 64 bytes.
constexpr std::int64_t scratch_step(std::int64_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace v0
}  // namespace kvevict
