// SPDX-License-Identifier: Apache-2.0
// The rows that observe() takes in: how many there are, and whether a sequence's state may go on with them.
#pragma once

#include <algorithm>
#include <limits>

#include <kvevict/cache/row_sights.hpp>
#include <kvevict/core/evidence_messages.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/evidence/evidence.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// The new rows that sequences provide, of attention or of hidden states.
template <class Evidence> constexpr row_places places_of(Evidence const& e) {
  if constexpr (has<Evidence, facts::features>)
    return e.input.places();
  else
    return e.attention.places();
}
template <class Evidence> constexpr std::int32_t rows_of(Evidence const& e, std::int32_t b) {
  return places_of(e).rows(b);
}

namespace planning {

/// The position behind which no token of the cache may lie: that of the last row; hidden states have none.
constexpr std::int64_t last_position(row_places const& rows, std::int32_t b) {
  return rows.positions == nullptr || rows.rows(b) <= 0 ? std::numeric_limits<std::int64_t>::max()
                                                        : rows.position(b, rows.rows(b) - 1);
}

/// Softmax went over tokens of other processes, too, of which the rows may be.
template <class Evidence> constexpr bool is_shard(Evidence const& e) {
  if constexpr (has<Evidence, facts::features>)
    return false;
  else
    return e.attention.sum == row_sum::at_most_one;
}

/// Whether the new rows of a sequence are those of its newest tokens, and what is said of the older ones can be true.
struct older_check {
  std::int64_t older, known;  // padding is no token
  std::int32_t fresh;         // tokens that have just arrived: as many as rows, but in a shard
  older_fault wrong = older_fault::none;

  template <class Evidence>
  constexpr older_check(Evidence const& e, std::int32_t b, std::int32_t h, std::int32_t tokens)
      : older(0), known(0), fresh(std::max(rows_of(e, b), 0)) {
    if (rows_of(e, b) <= 0 || tokens < rows_of(e, b)) return;
    judge_older(e, b, tokens);
    if constexpr (!has<Evidence, facts::features>) {
      component const* const carried = e.cache.find(role::position);
      if (wrong == older_fault::none && carried != nullptr && e.cache.order == row_order::ascending)
        find_fresh(e, *carried, b, h, tokens);
    }
    if (wrong == older_fault::none && older <= 0) fresh = tokens;  // a beginning, of padding's state, too
  }

 private:
  template <class Evidence> constexpr void judge_older(Evidence const& e, std::int32_t b, std::int32_t tokens) {
    std::int64_t const padding = e.sees.padding(b), whole = tokens - fresh,
                       writable = whole - std::max<std::int64_t>(padding, e.cache.read_only_tokens(b));
    older = whole - padding;
    if (writable <= 0) return;
    if constexpr (has<Evidence, facts::features>) {
      gate_memory const& m = e.input.memory;
      known = m.rows == nullptr || m.tokens == nullptr ? 0 : m.tokens[b];
      wrong = check_older_of_gate(e.older_of(b), older, writable, known);
    } else {
      known = e.attention.positions == nullptr ? 0 : e.attention.places().position(b, 0);
      wrong = check_older(e.older_of(b), older, writable, known);
    }
  }
  /// By position, of rows in order. For others see row_budgets.hpp.
  template <class Evidence>
  constexpr void find_fresh(Evidence const& e, component const& carried, std::int32_t b, std::int32_t h,
                            std::int32_t tokens) {
    token_positions<typename decltype(e.cache)::table_entry> const at{e.cache.rows_of(carried, b, h), true, tokens,
                                                                      e.sees.padding(b)};
    std::int64_t const newest = at(tokens - 1), last = last_position(places_of(e), b);
    std::int32_t const rows = fresh, found = tokens - at.before(e.attention.places().position(b, 0));
    wrong = last < newest ? older_fault::rows_before_newest : check_fresh(found, rows, is_shard(e));
    if (wrong == older_fault::rows_before_newest) older = newest, known = last;
    if (wrong == older_fault::none && found != rows)
      fresh = found, judge_older(e, b, tokens);
    else if (wrong != older_fault::none && last >= newest)
      older = found, known = rows;
  }
};

/// The new rows of a sequence, any number of them, are those of its newest tokens; how many tokens that are. Of
/// scattered rows one hidden state, which says nothing of its position.
template <class Evidence> std::int32_t expect_new_rows(Evidence const& e, row const& it) {
  std::int32_t const b = it.sequence, tokens = it.tokens, rows = rows_of(e, b);
  if constexpr (!has<Evidence, facts::features>) {
    if (rows != 0 && e.attention.positions == nullptr) messages::no_positions();
    for (std::int32_t i = 0; it.head == 0 && i < rows; ++i)
      if (std::int32_t const at = e.attention.places().position(b, i); at < 0) messages::negative_position(b, at);
  }
  if (rows > tokens) messages::more_rows_than_tokens(b, it.head, rows, tokens);
  older_check const c(e, b, it.head, tokens);
  if (c.wrong != older_fault::none) messages::older_tokens(c.wrong, b, it.head, c.older, c.known);
  if (has<Evidence, facts::features> && e.cache.order != row_order::ascending && rows > 1)
    messages::scattered_rows(b, it.head);
  return c.fresh;
}

}  // namespace planning

}  // namespace KVEVICT_ABI
}  // namespace kvevict
