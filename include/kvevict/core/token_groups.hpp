// SPDX-License-Identifier: Apache-2.0
// Which tokens of a row a reduction goes over.
#pragma once

#include <cstdint>

#include <kvevict/core/score_rows.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// Tokens that a reduction reads: all of a row, those that may be evicted, or, of observe(), those that have just come.
enum class token_range : std::uint8_t { all, evictable, fresh };

/// The tokens of every row from `first` on, in groups of `size`, of which the last may be shorter; size 0: one group.
///
///   group g   tokens [first + g·size, first + (g+1)·size) that the row has
struct token_groups {
  std::int32_t first = 0, size = 0;
  token_range range = token_range::all;

  constexpr std::int64_t count(std::int64_t tokens) const {
    return size == 0 ? 1 : tokens <= first ? 0 : (tokens - first + size - 1) / size;
  }
  constexpr std::int64_t begin(std::int64_t g) const { return first + g * size; }
  constexpr std::int64_t end(std::int64_t g, std::int64_t tokens) const {
    return size == 0 || tokens < begin(g + 1) ? tokens : begin(g + 1);
  }
  /// Of a token at `first` or behind it.
  constexpr std::int64_t group_of(std::int64_t token) const { return size == 0 ? 0 : (token - first) / size; }
  /// A whole group follows on that one.
  constexpr bool is_followed(std::int64_t g, std::int64_t tokens) const { return begin(g + 2) <= tokens; }
  /// Of that group, or one `behind` it, among the groups of all rows, (B·H, G).
  constexpr std::int64_t place(score_rows const& rows, row const& in, std::int64_t token,
                               std::int64_t behind = 0) const {
    return rows.index_of(in) * count(rows.most_tokens) + group_of(token) + behind;
  }
  constexpr bool reads(score_rows const& rows, std::int64_t r, std::int64_t token) const {
    return range == token_range::all ||
           (range == token_range::fresh ? rows.order(r, token) >= rows.rows[r].new_from : rows.evictable(r, token));
  }
  /// Of the tiles of a row's group the first one with a token that is read, as far as one sees without looking.
  constexpr std::int64_t first_tile(score_rows const& rows, std::int64_t r, std::int64_t g, std::int64_t tile) const {
    std::int64_t const from = rows.rows[r].new_from;
    if (range != token_range::fresh || rows.positions != nullptr || from <= begin(g)) return begin(g);
    return begin(g) + (from - begin(g)) / tile * tile;
  }
};

}  // namespace KVEVICT_ABI
}  // namespace kvevict
