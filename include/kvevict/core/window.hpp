// SPDX-License-Identifier: Apache-2.0
// Which rows of a sequence a window reads, and what each of them sees.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include <kvevict/core/visibility.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// A row that sees s, and of `always` what is before its end, sees one of `tokens` tokens.
constexpr bool sees_any(sight s, sight always, std::int32_t tokens, std::int32_t const* orders) {
  std::int32_t const end = std::min(s.to, tokens);
  if (orders == nullptr) return std::max(s.from, 0) < end || std::max(always.from, 0) < std::min(always.to, end);
  for (std::int32_t j = 0; j < tokens; ++j)
    if (orders[j] < s.to && (orders[j] >= s.from || always.has(orders[j]))) return true;
  return false;
}

/// The newest rows that a sequence provides, as many as a window reads. Row w is token first_token + w and sees tokens
/// [0, first_sees + w·step), unless `each` says otherwise, see row_sights.
struct window_rows {
  std::int32_t count;  // W
  std::int64_t first;  // of row 0 among those of the batch
  std::int32_t first_token;
  std::int32_t first_sees, step;
  sight const* each = nullptr;  // (W) what each row sees, or null
  sight always{0, 0};           // what a row sees besides, before its end

  constexpr sight of(std::int32_t w) const { return each == nullptr ? sight_up_to(first_sees + w * step) : each[w]; }
  constexpr std::int32_t end(std::int32_t w) const { return each == nullptr ? first_sees + w * step : each[w].to; }
  /// Rows before this one see nothing at `order` or behind it, as ends do not descend; in O(log W).
  constexpr std::int32_t first_to_reach(std::int32_t order) const {
    std::int32_t low = 0, high = count;
    while (low < high) {
      std::int32_t const middle = low + (high - low) / 2;
      if (end(middle) <= order)
        low = middle + 1;
      else
        high = middle;
    }
    return low;
  }
  constexpr bool sees(std::int32_t w, std::int32_t order) const {
    sight const s = of(w);
    return order < s.to && (order >= s.from || always.has(order));
  }
  /// Row w sees one of `tokens` tokens; `orders`: theirs, or null: their numbers. In O(1), with `orders` O(N).
  constexpr bool sees_any(std::int32_t w, std::int32_t tokens, std::int32_t const* orders) const {
    return kvevict::sees_any(of(w), always, tokens, orders);
  }
  /// Row w sees no order at all.
  constexpr bool sees_none(std::int32_t w) const {
    sight const s = of(w);
    return s.is_empty() && (always.is_empty() || always.from >= s.to);
  }
};

/// Rows that a sequence of N tokens must provide for a window of W.
constexpr std::int32_t rows_needed(std::int32_t wanted, std::int32_t tokens) { return std::min(wanted, tokens); }

/// Of sequence b with N tokens the last `wanted` rows, or as many as there are: no more than N where they are in the
/// cache.
template <class Rows>
constexpr window_rows newest_rows(Rows const& rows, std::int32_t b, std::int32_t tokens, std::int32_t wanted,
                                  row_place place, bool scattered) {
  // values, not std::min's references: on a device one of several references is a place in local memory
  std::int32_t const given = rows.rows(b), there = place == row_place::in_cache ? rows_needed(given, tokens) : given,
                     count = there < 0 ? 0 : rows_needed(wanted, there);
  bool const causal = place == row_place::in_cache && !scattered;
  std::int32_t const first_token = tokens - count, all = scattered ? std::numeric_limits<std::int32_t>::max() : tokens;
  return {count, rows.first_row(b) + given - count, first_token, causal ? first_token + 1 : all, causal ? 1 : 0};
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
