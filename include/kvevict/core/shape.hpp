// SPDX-License-Identifier: Apache-2.0
// Sizes of the largest call that scratch must serve.
#pragma once

#include <algorithm>
#include <cstdint>

#include <kvevict/core/contract.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// One layer of a batch. `pool_pages` and `table_pages` (entries over all rows) are read by the checks of the view; 0
/// for contiguous caches. Of a stack of layers `sequences` and both counts are those of all layers together; where
/// heads have tables of their own into pages that they share, pool_pages counts the heads, too.
struct cache_shape {
  std::int32_t sequences = 1, q_heads = 1, kv_heads = 1, head_dim = 128;
  std::int64_t tokens = 0;  // of the longest row
  std::int64_t table_pages = 0, pool_pages = 0;

  constexpr std::int64_t rows() const { return std::int64_t{sequences} * kv_heads; }
};

/// Scratch is taken in steps of 64 bytes.
constexpr std::int64_t scratch_step(std::int64_t bytes) { return (bytes + 63) / 64 * 64; }

namespace contract {

/// Counts that a cache can have, small enough that no kernel's sum of bytes overflows.
inline void expect_shape(char const* verb, cache_shape const& s) {
  KVEVICT_EXPECTS(s.sequences >= 0 && s.tokens >= 0 && s.table_pages >= 0 && s.pool_pages >= 0, verb,
                  ": the shape has ", s.sequences, " sequences, ", s.tokens, " tokens, ", s.table_pages,
                  " table pages and ", s.pool_pages, " pool pages; none may be negative");
  KVEVICT_EXPECTS(s.kv_heads >= 1 && s.q_heads >= s.kv_heads && s.q_heads % s.kv_heads == 0 && s.head_dim >= 1, verb,
                  ": the shape has ", s.q_heads, " query heads on ", s.kv_heads, " KV heads of ", s.head_dim,
                  " elements; give Hq = G·H heads and D, 1 or more each");
  constexpr std::int64_t most = std::int64_t{1} << 58, pages = std::int64_t{1} << 40;
  std::int64_t const rows = std::int64_t{s.sequences} * s.q_heads, tokens = std::max<std::int64_t>(s.tokens, 1);
  KVEVICT_EXPECTS(rows <= most / tokens / std::max(tokens, std::int64_t{s.head_dim} << 12) && s.table_pages <= pages &&
                      s.pool_pages <= pages,
                  verb, ": the shape has ", rows, " rows of ", s.tokens, " tokens, ", s.table_pages,
                  " table pages and ", s.pool_pages, " pool pages, which no machine holds; correct it");
}

}  // namespace contract
}  // namespace KVEVICT_ABI
}  // namespace kvevict
