// SPDX-License-Identifier: Apache-2.0
// What rows of evidence see of one row of the cache: from positions to tokens.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include <kvevict/cache/layer_view.hpp>
#include <kvevict/core/window.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// The positions of a row's tokens: what the cache carries, or their slots behind the padding.
template <class Entry> struct token_positions {
  token_rows<Entry> at;  // of the position component
  bool carried;
  std::int32_t tokens, padding;

  constexpr std::int64_t operator()(std::int64_t j) const {
    return carried ? std::int64_t{*reinterpret_cast<std::int32_t const*>(at(j))} : j - padding;
  }
  /// Of ascending rows: how many tokens are before position p.
  constexpr std::int32_t before(std::int64_t p) const {
    if (!carried) return static_cast<std::int32_t>(std::clamp<std::int64_t>(p + padding, 0, tokens));
    std::int32_t low = std::clamp(padding, 0, tokens), high = tokens;  // padding's positions mean nothing
    while (low < high) {
      std::int32_t const middle = low + (high - low) / 2;
      if ((*this)(middle) < p)
        low = middle + 1;
      else
        high = middle;
    }
    return low;
  }
};

/// Of rows of evidence in one row of the cache: `window_rows::each`, in O(log N) a row where the cache carries
/// positions.
template <class Entry> struct row_sights {
  token_positions<Entry> position_of;
  bool scattered;
  row_place place;
  visibility sees;
  std::int32_t const* positions;  // of window row 0 and those behind it, or null
  std::int32_t first_token;       // of window row 0, or how many rows come between the cache and it

  /// The position of window row w; −1: nobody knows, but it is the newest.
  constexpr std::int64_t position(std::int32_t w) const {
    if (positions != nullptr) return positions[w];
    if (scattered) return -1;
    if (place == row_place::in_cache) return position_of(first_token + w);
    return (position_of.tokens == 0 ? 0 : position_of(position_of.tokens - 1) + 1) + first_token + w;
  }
  constexpr sight of(std::int32_t w) const { return from_position(w, position(w)); }
  /// The same, of a row that is at position p.
  constexpr sight from_position(std::int32_t w, std::int64_t p) const {
    constexpr std::int32_t most = std::numeric_limits<std::int32_t>::max();
    std::int64_t const back = p < 0 ? 0 : p - sees.begin(p);
    if (scattered)
      return {
          p < 0 || sees.reaches_back() ? std::numeric_limits<std::int32_t>::min() : static_cast<std::int32_t>(p - back),
          p < 0 || p >= most ? most : static_cast<std::int32_t>(p) + 1};
    std::int32_t from = 0, to = position_of.tokens;
    if (place == row_place::in_cache && (positions == nullptr || !position_of.carried)) {
      to = first_token + w + 1;
      from = position_of.carried ? position_of.before(p - back)
                                 : static_cast<std::int32_t>(std::max<std::int64_t>(first_token + w - back, 0));
    } else {
      if (place == row_place::in_cache || position_of.carried) to = position_of.before(p + 1);
      from = position_of.before(p - back);
    }
    return {std::max(sees.reaches_back() ? 0 : from, position_of.padding), to};
  }
  /// Orders that every row sees.
  constexpr sight always() const {
    if (sees.sinks == 0 || sees.reaches_back()) return {0, 0};
    if (scattered) return {0, sees.sinks};
    return {position_of.padding, std::max(position_of.padding, position_of.before(sees.sinks))};
  }
  constexpr sight_fault fault_of(std::int32_t w) const {
    if (!visibility::is_padding(position_of.padding, position_of.tokens, scattered)) return sight_fault::padding;
    if (positions == nullptr) return scattered && !sees.reaches_back() ? sight_fault::unknown : sight_fault::none;
    std::int64_t const p = positions[w], token = first_token + w;
    if (p < 0) return sight_fault::negative;
    if (w > 0 && p < positions[w - 1]) return sight_fault::descending;
    if (position_of.carried || scattered || place != row_place::in_cache) return sight_fault::none;
    if (p < token - position_of.padding) return sight_fault::before_its_token;
    return p > token && !sees.reaches_back() ? sight_fault::behind_its_token : sight_fault::none;
  }
};

/// The newest rows of sequence b that a window of `wanted` reads. `Rows`: query_rows or attention_rows.
template <class Entry, class Rows>
constexpr window_rows newest_rows(layer_view<Entry> const& view, Rows const& rows, std::int32_t b, std::int32_t tokens,
                                  std::int32_t wanted, row_place place) {
  return newest_rows(rows, b, tokens, wanted, place, view.order == row_order::scattered);
}

/// What they see, of row (b, h) with that many tokens.
template <class Entry, class Rows>
constexpr row_sights<Entry> sights_of(layer_view<Entry> const& view, Rows const& rows, std::int32_t b, std::int32_t h,
                                      std::int32_t tokens, window_rows const& in, row_place place) {
  component const* const carried = view.find(role::position);
  std::int64_t const behind = in.first - rows.first_row(b);
  return {{carried == nullptr ? token_rows<Entry>{} : view.rows_of(*carried, b, h), carried != nullptr, tokens,
           rows.sees.padding(b)},
          view.order == row_order::scattered,
          place,
          rows.sees,
          rows.positions == nullptr ? nullptr : rows.positions_of(b) + in.first,
          place == row_place::in_cache ? in.first_token : static_cast<std::int32_t>(behind)};
}

/// How many of `count` rows see token j of an ascending row of the cache; O(log² N).
template <class Entry>
constexpr std::int32_t rows_that_see(row_sights<Entry> const& of, std::int32_t count, std::int32_t j) {
  bool const always = of.always().has(j);
  auto const first_behind = [&](bool ends) {  // the first row that sees up to j, or that sees only what follows
    std::int32_t low = 0, high = count;
    while (low < high) {
      std::int32_t const middle = low + (high - low) / 2;
      sight const s = of.of(middle);
      if (ends ? s.to <= j : s.from <= j)
        low = middle + 1;
      else
        high = middle;
    }
    return low;
  };
  std::int32_t const first = first_behind(true), last = always ? count : first_behind(false);
  return last > first ? last - first : 0;
}

/// How many rows have seen the token at position p, if there was one at every position up to `newest`.
constexpr std::int64_t rows_since(visibility const& sees, std::int64_t p, std::int64_t newest) {
  std::int64_t last = newest;
  if (p >= sees.sinks) {
    if (sees.window != 0 && p + sees.window - 1 < last) last = p + sees.window - 1;
    if (sees.chunk != 0 && p - p % sees.chunk + sees.chunk - 1 < last) last = p - p % sees.chunk + sees.chunk - 1;
  }
  return last - p + 1;
}

/// Every row sees the tokens up to its own and nothing else depends on positions: `window_rows::each` is not needed.
template <class Entry, class Rows> constexpr bool sees_by_index(layer_view<Entry> const& view, Rows const& rows) {
  return rows.sees.is_whole() && view.find(role::position) == nullptr;
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
