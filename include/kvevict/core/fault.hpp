// SPDX-License-Identifier: Apache-2.0
// What is wrong with a sequence, as data: a device records it, and the host turns it into a message later.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>

#include <kvevict/core/contract.hpp>
#include <kvevict/core/messages.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// In the order in which one is named where a head has several.
enum class fault : std::uint8_t {
  none,
  length,
  read_only,
  row_begin,
  query_rows,
  page,
  page_twice,
  new_rows,
  negative_budget,
  position,
  budget_below_protected,
  equal_positions,
  gate_memory,
  gate_not_finite,
  weight_above_one,
  weight_below_zero,
  not_finite,
  weighted_score,
  keep_set,
  unequal_counts,
  keep_prefix,
  victims,
  page_wise,
  heads_disagree,
  keep_unordered
};

/// A sequence's first fault: that of its lowest head, of a head's the first kind, of a kind's the lowest token.
struct fault_record {
  std::uint64_t place;           // ~(head, kind, token), the larger the earlier; 0: none
  std::uint32_t turn;            // of those that write what follows
  std::int32_t layer, sequence;  // sequences of a stack are counted through its layers
  std::uint32_t call;            // that found it
  std::int64_t what, other;      // of that kind: a count, a page id
  std::int32_t more[2];          // of that kind
  char const* verb;              // the host's text: a device only carries it

  static constexpr std::uint64_t place_of(fault kind, std::int32_t head, std::int64_t token) {
    return ~(std::uint64_t{static_cast<std::uint32_t>(head)} << 40 |
             std::uint64_t{static_cast<std::uint8_t>(kind)} << 32 | static_cast<std::uint32_t>(token));
  }
  std::int32_t head() const { return static_cast<std::int32_t>(~place >> 40); }
  bool is_sound() const { return place != 0 && kind() > fault::none && kind() <= fault::keep_unordered; }
  fault kind() const { return static_cast<fault>(~place >> 32 & 0xff); }
  std::int32_t token() const { return static_cast<std::int32_t>(~place & 0xffffffffu); }
};

/// Raises it, in the host's words as far as the record knows the details.
[[noreturn]] inline void raise(fault_record const& s) {
  auto const at = [&](char const* verb) {
    return std::string(verb) + ": sequence " + std::to_string(s.sequence) + ", head " + std::to_string(s.head()) + ": ";
  };
  std::string const a = std::to_string(s.what), b = std::to_string(s.other);
  switch (s.kind()) {
    case fault::length:
      contract::violate(
          at("validate"), "a length of ", a, " tokens is negative, above the table's ", b,
          ", or not that of the other heads of a shared table; correct the length, or provide the whole table");
    case fault::read_only:
      contract::violate("validate: read_only[", s.sequence, "] = ", a, " tokens is not a multiple of the page size ", b,
                        "; a page is shared "
                        "as a whole, or the whole sequence is");
    case fault::page:
      contract::violate(at("validate"), "page ", b, " has id ", a,
                        ", which the pool does not have; correct the table, index_mask or page_count");
    case fault::page_twice:
      contract::violate(at("validate"), "page ", b, " has id ", a,
                        ", which this or another row also writes; copy it, or declare "
                        "the shared front with read_only");
    case fault::negative_budget: messages::negative_budget(s.verb, s.what, s.sequence);
    case fault::budget_below_protected: messages::budget_below_protected(s.what, s.other, s.sequence, "");
    case fault::query_rows:
      contract::violate(at("evidence"), a, " rows are provided, but ", b,
                        " are needed; provide the rows of the newest tokens, and no "
                        "more than most_rows");
    case fault::row_begin:
      contract::violate("evidence: row_begin goes from ", a, " to ", b, " at sequence ", s.sequence,
                        "; it must be B+1 ascending offsets, "
                        "none negative");
    case fault::not_finite: {
      float x;
      auto const bits = static_cast<std::uint32_t>(s.what);
      std::memcpy(&x, &bits, sizeof x);
      messages::not_finite(s.verb, s.token(), s.sequence, s.head(), "", x);
    }
    case fault::weight_above_one: messages::weight_above_one("evidence: " + messages::row(s.sequence, s.head()));
    case fault::weight_below_zero: messages::softmax_weight("evidence: " + messages::row(s.sequence, s.head()));
    case fault::weighted_score:
      contract::violate(at("count_best"), "a score is not finite after its weight; keep weights moderate");
    case fault::keep_set: messages::keep_set_of_other_length(s.verb, s.sequence, s.head(), s.what, s.other);
    case fault::keep_unordered: messages::keep_set_out_of_order(s.verb, s.sequence, s.head(), s.what);
    case fault::keep_prefix: messages::keep_set_without_prefix(s.verb, s.sequence, s.head(), s.what);
    case fault::unequal_counts:
      contract::violate(at(s.verb), "heads keep ", a, " and ", b,
                        " tokens but share a page table; use a policy with equal counts per "
                        "head, or give every head its own table");
    case fault::heads_disagree:
      contract::violate(
          at(s.verb),
          "heads move different tokens, but a component has one row for all heads; give it a row per head "
          "(head_stride), or use a policy that keeps the same tokens in all heads");
    case fault::new_rows:
      contract::violate("observe: sequence ", s.sequence, " provides ", a, " rows for ", b,
                        " tokens; append the new tokens to the cache first, "
                        "one row each, equally many in every sequence and as many as most_rows says");
    case fault::position: messages::negative_position(s.sequence, s.what);
    case fault::gate_memory:
      contract::violate("gate: sequence ", s.sequence, " has ", a, " tokens in the gate's memory and room for ", b,
                        "; make gate_memory larger, "
                        "or plan from remembered(cache)");
    case fault::gate_not_finite:
      contract::violate("gate: a probability of sequence ", s.sequence,
                        " is not a number; look at the hidden states and the weights");
    case fault::page_wise:
      contract::violate(
          at(s.verb),
          "a component is quantised per page and channel, so its tokens cannot move and its slots not take "
          "others; drop whole pages instead");
    case fault::victims:
      contract::violate(at("replace"), a,
                        " tokens are evicted, but one token comes next; evict one per step, or compact");
    case fault::equal_positions: messages::equal_positions(s.verb, s.sequence, s.head());
    case fault::none: break;
  }
  contract::violate("cuda: unknown status ", static_cast<int>(s.kind()), "; this is a defect of the library");
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
