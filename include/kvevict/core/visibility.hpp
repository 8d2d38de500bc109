// SPDX-License-Identifier: Apache-2.0
// What a query row sees of the tokens of its sequence: one notion for everything that reads attention.
#pragma once

#include <cstdint>
#include <limits>

#include <kvevict/core/abi.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// Where query rows stand: they are tokens of the cache (drafts and other shards' tokens among them), or all come after
/// it.
enum class row_place : std::uint8_t { in_cache, behind_cache };

/// What the row at position p sees, as the layer's own softmax had it: positions up to p, and of those
///
///   (p − window, p]              of a sliding window (0: none)
///   [p − p mod chunk, p]         of chunked attention (0: none)
///   [0, sinks)                   in any case
///
/// Slots before first_token[b] are padding (a batch padded on the left): no row sees them, positions count from there,
/// and a position that the cache carries for one of them means nothing. A stack has one for each sequence of each layer
/// (b = l·S + s), as eviction may leave layers different padding, even where its rows are said once for all layers.
/// Padding is evicted first; policies with sinks, and scores that read the keys or values of a row as a whole, are
/// refused there.
///
/// Errors   contract_violation for first_token below 0, beyond a row that holds any tokens, or not 0 of scattered rows.
struct visibility {
  std::int32_t window = 0, chunk = 0, sinks = 0;
  std::int32_t const* first_token = nullptr;  // (B) slots, of a stack (L·S), or null: 0

  /// A row sees all positions up to its own.
  constexpr bool is_whole() const { return window == 0 && chunk == 0 && first_token == nullptr; }
  constexpr bool reaches_back() const { return window == 0 && chunk == 0; }
  constexpr std::int32_t padding(std::int32_t b) const { return first_token == nullptr ? 0 : first_token[b]; }
  /// Those slots of padding, before a row's tokens; of a row that holds nothing they say nothing.
  static constexpr bool is_padding(std::int32_t slots, std::int32_t tokens, bool scattered) {
    return tokens == 0 || (slots >= 0 && slots <= (scattered ? 0 : tokens));
  }
  /// The first position that a row at p sees, sinks apart.
  constexpr std::int64_t begin(std::int64_t p) const {
    std::int64_t const in_window = window == 0 ? 0 : p - window + 1, in_chunk = chunk == 0 ? 0 : p - p % chunk;
    return in_window > in_chunk ? in_window : in_chunk;
  }
};

/// Orders of tokens (slots of ascending rows, positions of scattered ones), from one up to another.
struct sight {
  std::int32_t from, to;

  constexpr bool has(std::int32_t order) const { return order >= from && order < to; }
  constexpr bool is_empty() const { return from >= to; }
};

/// A contradiction between rows of evidence and the cache.
enum class sight_fault : std::uint8_t {
  none,
  negative,    // a position
  descending,  // positions of a sequence's rows
  before_its_token,
  behind_its_token,  // so that tokens before it were evicted, and nobody knows how far back it sees
  unknown,           // of scattered rows, where a row sees only some of them
  padding            // below 0, beyond the row, or of scattered rows
};

/// From the first order to before `to`.
constexpr sight sight_up_to(std::int32_t to) { return {std::numeric_limits<std::int32_t>::min(), to}; }

}  // namespace KVEVICT_ABI
}  // namespace kvevict
