// SPDX-License-Identifier: Apache-2.0
// A recorded fault in the host's words.
#pragma once

#include <cstdint>
#include <cstring>

#include <kvevict/core/contract.hpp>
#include <kvevict/core/evidence_messages.hpp>
#include <kvevict/core/fault.hpp>
#include <kvevict/core/messages.hpp>
#include <kvevict/core/rope_messages.hpp>
#include <kvevict/core/view_messages.hpp>
#include <kvevict/core/visibility_messages.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// A float whose bits a record carries.
inline float float_of(std::int64_t bits) {
  auto const low = static_cast<std::uint32_t>(bits);
  float x;
  std::memcpy(&x, &low, sizeof x);
  return x;
}

/// Raises it, in the host's words. Of a view and of evidence.
inline void raise_input(fault_record const& s) {
  std::int32_t const b = s.sequence, h = s.head();
  switch (s.kind()) {
    case fault::page_offsets: messages::page_offsets(s.more[0], s.what, s.other);
    case fault::negative_length: messages::negative_length(b, h, s.what);
    case fault::length_beyond_table: messages::length_beyond_table(b, h, s.what, s.other);
    case fault::lengths_differ: messages::lengths_differ(b, h, s.other, s.what);
    case fault::layers_differ: messages::layers_differ(b, h, s.layer, s.other, s.what);
    case fault::read_only: messages::read_only(b, s.what, s.other);
    case fault::padding: messages::padding(b, h, s.what, s.other, s.more[0] != 0);
    case fault::row_begin:
      if (b == 0 && s.what < 0) messages::row_begin_starts(static_cast<std::int32_t>(s.what));
      messages::row_begin_descends(b);
    case fault::row_count: messages::row_count(b, s.what, s.other);
    case fault::ring_positions: messages::ring_positions(b);
    case fault::no_ring: messages::no_ring(b, s.what, s.other);
    case fault::rows_behind: messages::rows_behind(b, s.what, s.other);
    case fault::most_rows:
      contract::violate("evidence: sequence ", b, " provides ", s.what, " rows, but most_rows is ", s.other,
                        "; a device cannot look row_begin up, say how many rows a sequence provides at most");
    case fault::no_data: messages::no_data();
    case fault::share: messages::share(s.verb, s.token(), s.what);
    case fault::softmax_slots: messages::softmax_slots(s.other, b, h, s.what);
    case fault::page: messages::page_unknown(s.token(), b, h, s.what, s.verb, s.other);
    case fault::page_between: messages::page_between(s.token(), b, h, s.what, s.verb);
    case fault::page_null: messages::page_null(s.token(), b, h);
    case fault::page_unaligned: messages::page_unaligned(s.token(), b, h, s.verb);
    case fault::page_alignment: messages::page_alignment(s.token(), b, h, s.other);
    case fault::page_twice: messages::page_twice(s.what, s.other, b, h, s.verb);
    case fault::page_shared: messages::page_shared(s.token(), b, h, s.what, s.more[0], s.more[1], s.verb);
    case fault::not_ascending: messages::not_ascending(b, h, s.token(), s.what, s.other);
    case fault::no_positions: messages::no_positions();
    case fault::position: messages::negative_position(b, s.what);
    case fault::more_rows_than_tokens: messages::more_rows_than_tokens(b, h, s.what, s.other);
    case fault::older_tokens: messages::older_tokens(static_cast<older_fault>(s.more[0]), b, h, s.what, s.other);
    case fault::scattered_rows: messages::scattered_rows(b, h);
    default: break;
  }
}

/// Of a plan's budgets, rows and scores.
inline void raise_score(fault_record const& s) {
  std::int32_t const b = s.sequence, h = s.head();
  switch (s.kind()) {
    case fault::negative_budget: messages::negative_budget(s.verb, s.what, b);
    case fault::budget_below_protected:
      messages::budget_below_protected(s.what, s.other, b, s.more[0], s.more[1], s.token());
    case fault::other_lengths: messages::other_lengths(b, h, s.more[0], s.what, s.other);
    case fault::lengths_apart:
    case fault::budgets_apart:
      messages::rows_apart(s.more[0] != 0, s.kind() == fault::lengths_apart, b, h, s.more[1], s.what, s.other);
    case fault::positions_apart: messages::positions_apart(s.more[0] != 0, b, h, s.more[1], s.token(), s.what, s.other);
    case fault::equal_positions: messages::equal_positions(s.verb, b, h);
    case fault::queries: messages::too_few_queries(b, s.what, s.other);
    case fault::all_queries: messages::not_all_rows("column_sums", b, s.what, "query", s.other);
    case fault::softmax_rows: messages::too_few_softmax_rows(b, s.what, s.other);
    case fault::all_softmax_rows: messages::not_all_rows("evidence", b, s.what, "softmax", s.other);
    case fault::tokens: messages::too_few_tokens(s.what, b, s.other);
    case fault::prompt: messages::not_the_prompt(b, s.what, s.other);
    case fault::gate_memory_holds: messages::gate_memory_holds(s.what, b);
    case fault::no_hidden_states: messages::no_hidden_states();
    case fault::gate_memory_full: messages::gate_memory_full(s.what, s.more[0], b, s.other);
    case fault::gate_continues: messages::gate_continues(b, s.what);
    case fault::gate_not_a_number: messages::gate_not_a_number(b);
    case fault::row_sight: messages::row_sight(static_cast<sight_fault>(s.other), b, h, s.token(), s.what);
    case fault::weight_sum:
      messages::weight_sum(b, h, s.more[0], s.more[1], static_cast<double>(float_of(s.what)), float_of(s.other),
                           static_cast<log_base>(s.other >> 32));
    case fault::softmax_sum: messages::softmax_sum(b, h, s.more[0], s.more[1], static_cast<double>(float_of(s.what)));
    case fault::softmax_weight: messages::softmax_weight(b, h);
    case fault::not_finite: messages::not_finite(s.verb, s.token(), b, h, s.layer, float_of(s.what));
    case fault::weighted_score: messages::weighted_score(b, h);
    default: break;
  }
}

/// Of keep sets that do not fit the cache, and of keys that cannot be turned.
inline void raise_keep(fault_record const& s) {
  std::int32_t const b = s.sequence, h = s.head();
  switch (s.kind()) {
    case fault::keep_set: messages::keep_set_of_other_length(s.verb, b, h, s.what, s.other);
    case fault::keep_unordered: messages::keep_set_out_of_order(s.verb, b, h, s.what);
    case fault::keep_prefix: messages::keep_set_without_prefix(s.verb, b, h, s.what);
    case fault::unequal_counts: messages::unequal_counts(s.verb, b, h, s.what, s.other);
    case fault::victims: messages::victims(b, h, s.what);
    case fault::prefix_would_turn: messages::prefix_would_turn(b, h, s.token(), s.what, s.other);
    case fault::positions_cannot_turn: messages::positions_cannot_turn(b, h);
    case fault::common_positions_of_other_length: messages::common_positions_of_other_length(b, h, s.what, s.other);
    case fault::page_wise: messages::page_wise("compact", s.verb);
    case fault::page_wise_slot: messages::page_wise_slot(s.verb);
    case fault::heads_move_apart: messages::heads_disagree("move_rows", "move", b, h, s.verb);
    case fault::heads_evict_apart: messages::heads_disagree("replace", "evict", b, h, s.verb);
    case fault::layers_move_apart: messages::layers_disagree("move_rows", "move", b, h, s.layer);
    case fault::layers_evict_apart: messages::layers_disagree("replace", "evict", b, h, s.layer);
    default: break;
  }
}

[[noreturn]] inline void raise_as_host(fault_record const& s) {
  raise_input(s), raise_score(s), raise_keep(s);
  contract::violate("cuda: unknown status ", static_cast<int>(s.kind()), "; this is a defect of the library");
}

/// With all that is known of its place.
[[noreturn]] inline void raise(fault_record const& s) {
#if KVEVICT_EXCEPTIONS
  try {
    raise_as_host(s);
  } catch (contract_violation& e) {
    e.layer = s.layer, e.sequence = s.sequence, e.head = s.head();
    if (s.kind() == fault::not_finite) e.token = s.token();
    throw;
  }
#else
  raise_as_host(s);
#endif
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
