// SPDX-License-Identifier: Apache-2.0
// The rows that observe() takes in: how many there are, and whether a sequence's state may go on with them.
#pragma once

#include <algorithm>
#include <limits>

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

/// Whether what is said of a row's older tokens can be true.
struct older_check {
  std::int64_t older, known;
  older_fault wrong = older_fault::none;

  template <class Evidence>
  constexpr older_check(Evidence const& e, std::int32_t b, std::int32_t h, std::int32_t tokens)
      : older(std::int64_t{tokens} - rows_of(e, b)), known(0) {
    std::int64_t const writable = tokens - std::max<std::int64_t>(rows_of(e, b), 0) - e.cache.read_only_tokens(b);
    if (rows_of(e, b) == 0 || writable <= 0) return;
    if constexpr (has<Evidence, facts::features>) {
      gate_memory const& m = e.input.memory;
      known = m.rows == nullptr || m.tokens == nullptr ? 0 : m.tokens[b];
      wrong = check_older_of_gate(e.older_of(b), older, writable, known);
    } else {
      known = e.attention.places().position(b, 0);
      wrong = check_older(e.older_of(b), older, writable, known);
      if (wrong == older_fault::none && e.cache.order == row_order::ascending) expect_newest(e, b, h, tokens);
    }
  }

 private:
  /// Of rows in order, where the cache carries positions. For others see row_budgets.hpp.
  template <class Evidence>
  constexpr void expect_newest(Evidence const& e, std::int32_t b, std::int32_t h, std::int32_t tokens) {
    component const* const carried = e.cache.find(role::position);
    if (carried == nullptr) return;
    std::int64_t const newest = element<std::int32_t const>(e.cache, *carried, b, h, tokens - 1),
                       last = last_position(places_of(e), b);
    if (last < newest) older = newest, known = last, wrong = older_fault::rows_before_newest;
  }
};

/// The new rows of a sequence, any number of them, are those of its newest tokens. Of scattered rows one hidden state,
/// which says nothing of its position.
template <class Evidence> void expect_new_rows(Evidence const& e, row const& it) {
  std::int32_t const b = it.sequence, tokens = it.tokens, rows = rows_of(e, b);
  if constexpr (!has<Evidence, facts::features>) {
    if (rows != 0 && e.attention.positions == nullptr) messages::no_positions();
    for (std::int32_t i = 0; it.head == 0 && i < rows; ++i)
      if (std::int32_t const at = e.attention.places().position(b, i); at < 0) messages::negative_position(b, at);
  }
  if (rows > tokens) messages::more_rows_than_tokens(b, it.head, rows, tokens);
  if (older_check const c(e, b, it.head, tokens); c.wrong != older_fault::none)
    messages::older_tokens(c.wrong, b, it.head, c.older, c.known);
  if (has<Evidence, facts::features> && e.cache.order != row_order::ascending && rows > 1)
    messages::scattered_rows(b, it.head);
}

}  // namespace planning

}  // namespace KVEVICT_ABI
}  // namespace kvevict
