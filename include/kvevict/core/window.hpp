// SPDX-License-Identifier: Apache-2.0
// Which rows of a sequence a window reads, and what each of them sees.
#pragma once

#include <algorithm>
#include <cstdint>

#include <kvevict/core/abi.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// Which tokens a query row sees: causal, the rows being the last tokens of the cache; or all, the rows coming after
/// it.
enum class visibility : std::uint8_t { causal, all };

/// The newest rows that a sequence provides, as many as a window reads: row w is token first_token + w and sees tokens
/// [0, first_sees + w·step).
struct window_rows {
  std::int32_t count;  // W
  std::int64_t first;  // of row 0 among those of the batch
  std::int32_t first_token;
  std::int32_t first_sees, step;

  constexpr std::int32_t sees(std::int32_t w) const { return first_sees + w * step; }
  /// Its logical position: what the rows carry, or its token.
  constexpr std::int64_t position(std::int32_t const* positions, std::int32_t w) const {
    return positions == nullptr ? first_token + w : positions[first + w];
  }
};

/// Rows that a sequence of N tokens must provide for a window of W.
constexpr std::int32_t rows_needed(std::int32_t wanted, std::int32_t tokens) { return std::min(wanted, tokens); }

/// Of sequence b with N tokens the last `wanted` rows, or as many as there are: never more than `tokens` where they are
/// those tokens. In scattered rows a slot says nothing about time, so that a row sees all.
template <class Rows>
constexpr window_rows newest_rows(Rows const& rows, std::int32_t b, std::int32_t tokens, std::int32_t wanted,
                                  visibility sees, bool scattered) {
  // values, not std::min's references: on a device one of several references is a place in local memory
  std::int32_t const given = rows.rows(b),
                     there = sees == visibility::all ? given : rows_needed(given, tokens),
                     count = there < 0 ? 0 : rows_needed(wanted, there);
  bool const causal = sees == visibility::causal && !scattered;
  std::int32_t const first_token = tokens - count;
  return {count, rows.first_row(b) + given - count, first_token, causal ? first_token + 1 : tokens,
          causal ? 1 : 0};
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
