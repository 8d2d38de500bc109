// SPDX-License-Identifier: Apache-2.0
// What is wrong with a sequence, as data: a device records it, and the host turns it into a message later.
#pragma once

#include <cstdint>
#include <cstring>

#include <kvevict/core/contract.hpp>
#include <kvevict/core/evidence_messages.hpp>
#include <kvevict/core/messages.hpp>
#include <kvevict/core/view_messages.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// In the order in which one is named where a head has several.
enum class fault : std::uint8_t {
  none,
  page_offsets,
  negative_length,
  length_beyond_table,
  lengths_differ,
  read_only,
  row_begin,
  row_count,
  rows_behind,
  ring_positions,
  no_ring,
  most_rows,
  no_data,
  softmax_slots,
  page,
  page_between,
  page_null,
  page_unaligned,
  page_alignment,
  page_twice,
  page_shared,
  not_ascending,
  no_positions,
  position,
  more_rows_than_tokens,
  older_tokens,
  scattered_rows,
  negative_budget,
  budget_below_protected,
  other_lengths,
  lengths_apart,
  budgets_apart,
  positions_apart,
  equal_positions,
  queries,
  all_queries,
  softmax_rows,
  all_softmax_rows,
  row_sight,
  tokens,
  prompt,
  gate_memory_holds,
  no_hidden_states,
  gate_memory_full,
  gate_continues,
  gate_not_a_number,
  weight_sum,
  softmax_weight,
  softmax_sum,
  not_finite,
  weighted_score,
  keep_set,
  keep_unordered,
  keep_prefix,
  unequal_counts,
  victims,
  page_wise,
  page_wise_slot,
  heads_move_apart,
  heads_evict_apart
};

/// Of one sequence's budget, rows or scores, so that others can do without it; and what comes after it stays within its
/// memory.
constexpr bool is_of_sequence(fault f) {
  return (f >= fault::more_rows_than_tokens && f <= fault::prompt) ||
         (f >= fault::gate_not_a_number && f <= fault::weighted_score) || f == fault::position;
}

/// A sequence's first fault: that of its lowest head, of a head's the first kind, of a kind's the lowest token.
struct fault_record {
  std::uint64_t place;           // ~(head, kind, token), the larger the earlier; 0: none
  std::uint32_t turn;            // of those that write what follows
  std::int32_t layer, sequence;  // sequences of a stack are counted through its layers
  std::uint32_t call;            // that found it
  std::int64_t what, other;      // of that kind: a count, a page id
  std::int32_t more[2];          // of that kind
  char const* verb;              // or a component's name; the host's text, which a device only carries
  bool unreadable = false;       // lengths or offsets of the sequence are wrong: what they count must not be read

  static constexpr std::uint64_t place_of(fault kind, std::int32_t head, std::int64_t token) {
    return ~(std::uint64_t{static_cast<std::uint32_t>(head)} << 40 |
             std::uint64_t{static_cast<std::uint8_t>(kind)} << 32 | static_cast<std::uint32_t>(token));
  }
  std::int32_t head() const { return static_cast<std::int32_t>(~place >> 40); }
  bool is_sound() const { return place != 0 && kind() > fault::none && kind() <= fault::heads_evict_apart; }
  fault kind() const { return static_cast<fault>(~place >> 32 & 0xff); }
  std::int32_t token() const { return static_cast<std::int32_t>(~place & 0xffffffffu); }
};

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
    case fault::read_only: messages::read_only(b, s.what, s.other);
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
    case fault::softmax_slots: messages::softmax_slots(s.other, b, h, s.what);
    case fault::page: messages::page_unknown(s.token(), b, h, s.what, s.verb, s.other);
    case fault::page_between: messages::page_between(s.token(), b, h, s.what, s.verb);
    case fault::page_null: messages::page_null(s.token(), b, h);
    case fault::page_unaligned: messages::page_unaligned(s.token(), b, h, s.verb);
    case fault::page_alignment:
      contract::violate("validate: page ", s.token(), " of ", messages::row(b, h), " is not aligned to ", s.other,
                        " bytes; correct the address, or pages.alignment");
    case fault::page_twice: messages::page_twice(s.what, s.other, b, h);
    case fault::page_shared: messages::page_shared(s.token(), b, h, s.what, s.more[0], s.more[1]);
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
    case fault::budget_below_protected: messages::budget_below_protected(s.what, s.other, b, s.more[0], s.more[1]);
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
    case fault::weighted_score:
      contract::violate("count_best: ", messages::row(b, h),
                        ": a score is not finite after its weight; check the scores first and keep weights moderate");
    default: break;
  }
}

/// Of keep sets that do not fit the cache.
inline void raise_keep(fault_record const& s) {
  std::int32_t const b = s.sequence, h = s.head();
  switch (s.kind()) {
    case fault::keep_set: messages::keep_set_of_other_length(s.verb, b, h, s.what, s.other);
    case fault::keep_unordered: messages::keep_set_out_of_order(s.verb, b, h, s.what);
    case fault::keep_prefix: messages::keep_set_without_prefix(s.verb, b, h, s.what);
    case fault::unequal_counts: messages::unequal_counts(s.verb, b, h, s.what, s.other);
    case fault::victims: messages::victims(b, h, s.what);
    case fault::page_wise: messages::page_wise("compact", s.verb);
    case fault::page_wise_slot: messages::page_wise_slot(s.verb);
    case fault::heads_move_apart: messages::heads_disagree("move_rows", "move", b, h, s.verb);
    case fault::heads_evict_apart: messages::heads_disagree("replace", "evict", b, h, s.verb);
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
