// SPDX-License-Identifier: Apache-2.0
// What is wrong with a sequence, as data: a device records it, and the host turns it into a message (core/raise.hpp).
#pragma once

#include <cstdint>

#include <kvevict/core/abi.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// In the order in which one is named where a head has several.
enum class fault : std::uint8_t {
  none,
  page_offsets,
  negative_length,
  length_beyond_table,
  lengths_differ,
  layers_differ,
  read_only,
  padding,
  row_begin,
  row_count,
  rows_behind,
  ring_positions,
  no_ring,
  most_rows,
  no_data,
  share,
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
  common_positions_of_other_length,
  positions_cannot_turn,
  prefix_would_turn,
  page_wise,
  page_wise_slot,
  heads_move_apart,
  heads_evict_apart,
  layers_move_apart,
  layers_evict_apart
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
  bool is_sound() const { return place != 0 && kind() > fault::none && kind() <= fault::layers_evict_apart; }
  fault kind() const { return static_cast<fault>(~place >> 32 & 0xff); }
  std::int32_t token() const { return static_cast<std::int32_t>(~place & 0xffffffffu); }
};

}  // namespace KVEVICT_ABI
}  // namespace kvevict
