// SPDX-License-Identifier: Apache-2.0
// What is said of faults that a host finds at once and a device writes down as numbers: each text stands here, once.
#pragma once

#include <cstdint>
#include <string>

#include <kvevict/core/contract.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace messages {

/// Where a fault lies: "sequence 2, head 1".
constexpr contract::place row(std::int64_t sequence, std::int64_t head) { return {sequence, head}; }
constexpr contract::place of_sequence(std::int64_t sequence) { return {sequence}; }

[[noreturn]] inline void negative_budget(char const* verb, std::int64_t asked, std::int32_t sequence) {
  contract::violate(verb, ": a budget of ", asked, " tokens for ", of_sequence(sequence),
                    "; give a count, not a negative number");
}
[[noreturn]] inline void budget_below_protected(std::int64_t asked, std::int64_t tokens, std::int32_t sequence,
                                                std::int32_t front, std::int32_t back) {
  contract::violate("plan: a budget of ", asked, " tokens is below the ", tokens, " protected tokens of ",
                    of_sequence(sequence), " (", front, " at the front, ", back,
                    " recent); raise tokens_per_head or protect fewer");
}
[[noreturn]] inline void negative_position(std::int32_t sequence, std::int64_t position) {
  contract::violate("observe: a position of ", of_sequence(sequence), " is ", position,
                    "; give each row its token's logical position");
}
[[noreturn]] inline void equal_positions(char const* verb, std::int32_t sequence, std::int32_t head) {
  contract::violate(verb, ": the positions of ", row(sequence, head), " are not distinct numbers below 2147483647; ",
                    "write each token's own into the role::position component");
}
[[noreturn]] inline void not_finite(char const* verb, std::int64_t token, std::int32_t sequence, std::int32_t head,
                                    std::int32_t layer, float score) {
  contract::violate(
      contract::at(sequence, head, token, layer), verb, ": the score of token ", token, " of ", row(sequence, head),
      " in layer ", layer, " is ",
      score != score ? "NaN"
      : score > 0    ? "+inf"
                     : "-inf",
      "; look for values that are not finite in the queries, keys, values or LSE; to keep a token, protect it");
}
[[noreturn]] inline void weight_above_one(std::int64_t sequence, std::int64_t head) {
  contract::violate("evidence: ", row(sequence, head),
                    ": an attention weight is above 1; the scale, the softcap or the log_base of the LSE is not the "
                    "one that the engine's softmax used (FlashInfer gives log_base::two), or softmax rows are not "
                    "normalised");
}
[[noreturn]] inline void softmax_weight(std::int64_t sequence, std::int64_t head) {
  contract::violate("evidence: ", row(sequence, head),
                    ": a softmax weight is above 1 or below 0; provide normalised attention weights, not logits or "
                    "sums");
}
[[noreturn]] inline void keep_set_of_other_length(char const* verb, std::int32_t sequence, std::int32_t head,
                                                  std::int64_t tokens, std::int64_t planned) {
  contract::violate(verb, ": ", row(sequence, head), " has ", tokens, " tokens, but the keep set was planned for ",
                    planned, "; plan again after the cache has changed");
}
[[noreturn]] inline void keep_set_refused(char const* verb) {
  contract::violate(verb, ": the plan that was to fill this keep set was refused or has failed, so that it names no ",
                    "tokens; plan again, or keep all");
}
[[noreturn]] inline void move_plan_refused(char const* verb) {
  contract::violate(verb, ": the call that was to fill this move plan was refused or has failed, so that it names no ",
                    "moves; plan again, or keep all");
}
[[noreturn]] inline void keep_set_out_of_order(char const* verb, std::int32_t sequence, std::int32_t head,
                                               std::int64_t tokens) {
  contract::violate(verb, ": the kept tokens of ", row(sequence, head), " are not strictly ascending within [0, ",
                    tokens, "); sort them and drop doubles");
}
[[noreturn]] inline void keep_set_without_prefix(char const* verb, std::int32_t sequence, std::int32_t head,
                                                 std::int64_t prefix) {
  contract::violate(verb, ": the keep set drops a token of the read-only prefix of ", row(sequence, head), " (", prefix,
                    " tokens); protect the prefix in the policy, or copy it first");
}
[[noreturn]] inline void unequal_counts(char const* verb, std::int64_t sequence, std::int64_t head, std::int64_t first,
                                        std::int64_t count) {
  contract::violate(contract::at(sequence, head), verb, ": heads 0 and ", head, " of ", of_sequence(sequence), " keep ",
                    first, " and ", count,
                    " tokens but share a page table; use a policy with equal counts per head, or give every head its "
                    "own table");
}
[[noreturn]] inline void page_wise(char const* verb, char const* component) {
  contract::violate(verb, ": component ", component,
                    " is quantised per page and channel, so its tokens cannot move; drop whole pages instead");
}
[[noreturn]] inline void page_wise_slot(char const* component) {
  contract::violate("replace: component ", component,
                    " is quantised per page and channel, so a slot cannot take another token; drop whole pages "
                    "instead");
}
[[noreturn]] inline void victims(std::int64_t sequence, std::int64_t head, std::int64_t lost) {
  contract::violate("replace: ", row(sequence, head), " evicts ", lost,
                    " tokens, but one token comes next; evict one per step, or compact");
}
/// `do_what`: "move" or "evict".
[[noreturn]] inline void heads_disagree(char const* verb, char const* do_what, std::int64_t sequence, std::int64_t head,
                                        char const* component) {
  contract::violate(contract::at(sequence, head), verb, ": heads 0 and ", head, " of sequence ", sequence, " ", do_what,
                    " different tokens, but component ", component,
                    " has one row for all heads; give it a row per head (head_stride), or use a policy that keeps the "
                    "same tokens in all heads");
}

}  // namespace messages
}  // namespace KVEVICT_ABI
}  // namespace kvevict
