// SPDX-License-Identifier: Apache-2.0
// What is said of faults that a host finds at once and a device writes down as numbers: each text stands here, once.
#pragma once

#include <cstdint>
#include <string>

#include <kvevict/core/apportion.hpp>
#include <kvevict/core/contract.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace messages {

/// Of elements of a cache.
inline constexpr char const* readable_types =
    "f32, f16 and bf16 can be read, and what says how it is decoded (component::quant): fp8, i8, u8, i4, u4, or opaque "
    "rows with a decode function";

/// Where a fault lies: "sequence 2, head 1".
constexpr contract::place row(std::int64_t sequence, std::int64_t head) { return {sequence, head}; }
constexpr contract::place of_sequence(std::int64_t sequence) { return {sequence}; }

[[noreturn]] inline void negative_budget(char const* verb, std::int64_t asked, std::int32_t sequence) {
  if (asked == 0)
    contract::violate(verb, ": the budget of ", of_sequence(sequence),
                      " is 0 tokens; give what a head shall keep, or budget::no_cap where the budget is a gate's cap "
                      "and there shall be none");
  contract::violate(verb, ": a budget of ", asked, " tokens for ", of_sequence(sequence),
                    "; give a count, not a negative number");
}
[[noreturn]] inline void budget_below_protected(std::int64_t asked, std::int64_t tokens, std::int32_t sequence,
                                                std::int32_t front, std::int32_t back, std::int32_t page) {
  if (page > 1)
    contract::violate("plan: a budget of ", asked, " tokens is below the ", tokens, " tokens of ",
                      of_sequence(sequence), " in pages of ", page, " that stay whole (", front,
                      " protected tokens at the front, ", back,
                      " recent, the part-filled page); raise tokens_per_head to ",
                      (std::int64_t{front} + page - 1) / page * page + back + page - 1,
                      ", which does at every length, or protect fewer");
  contract::violate("plan: a budget of ", asked, " tokens is below the ", tokens, " protected tokens of ",
                    of_sequence(sequence), " (", front, " at the front, ", back,
                    " recent); raise tokens_per_head or protect fewer");
}
/// `has` < 0: that the view's differ is not what is wrong.
[[noreturn]] inline void other_lengths(std::int32_t sequence, std::int64_t head, std::int32_t layer, std::int64_t given,
                                       std::int64_t has) {
  std::string const where = "layer " + contract::number(layer) + " of " + contract::text_of(row(sequence, head));
  if (has < 0)
    contract::violate(contract::at(sequence, head, -1, layer), "plan: budget.lengths says that ", where, " has ", given,
                      " tokens; give counts, not negative numbers");
  contract::violate(contract::at(sequence, head, -1, layer), "plan: budget.lengths says that ", where, " has ", given,
                    " tokens, but the view has ", has,
                    "; give the lengths that all layers had before the first of them was planned");
}
/// Rows that are to keep one set: heads 0 and `head` of a sequence, or layers 0 and `sequence / of_layer` of a stack.
inline std::string rows_together(bool layers, std::int64_t sequence, std::int64_t head, std::int64_t of_layer) {
  if (!layers) return "heads 0 and " + contract::number(head) + " of sequence " + contract::number(sequence);
  return "layers 0 and " + contract::number(sequence / of_layer) + " of " +
         contract::text_of(row(sequence % of_layer, head));
}
[[noreturn]] inline void share(char const* stage, std::int64_t i, std::int64_t is) {
  contract::violate(stage, ": share ", i, " of the table is ", is, "; give 0 to ", most_share);
}
[[noreturn]] inline void rows_apart(bool layers, bool lengths, std::int64_t sequence, std::int64_t head,
                                    std::int64_t of_layer, std::int64_t first, std::int64_t here) {
  std::string const rows = rows_together(layers, sequence, head, of_layer);
  char const* const stage = layers ? "layers::together" : "heads::together";
  if (lengths)
    contract::violate(contract::at(sequence, head), "plan: ", rows, " have ", first, " and ", here,
                      " tokens; one set of tokens for both needs rows of one length, equal counts a budget below "
                      "both lengths; evict them by ",
                      stage, " from the first plan on");
  contract::violate(
      contract::at(sequence, head), "plan: ", rows,
      " have different budgets, read-only prefixes or padding; one set of tokens, or one length, for both "
      "needs the same, give both one budget or plan without ",
      stage);
}
[[noreturn]] inline void positions_apart(bool layers, std::int64_t sequence, std::int64_t head, std::int64_t of_layer,
                                         std::int64_t token, std::int64_t first, std::int64_t here) {
  contract::violate(contract::at(sequence, head, token), "plan: token ", token, " of ",
                    rows_together(layers, sequence, head, of_layer), " has position ", first, " and ", here,
                    "; one set of tokens for both needs the same tokens, evict them by ",
                    layers ? "layers::together" : "heads::together", " from the first plan on");
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
      "; look for values that are not finite in the queries, keys, values or LSE, or an LSE of another scale; to keep "
      "a token, protect it");
}
[[noreturn]] inline void weighted_score(std::int64_t sequence, std::int64_t head) {
  contract::violate(
      contract::at(sequence, head), "count_best: ", row(sequence, head),
      ": a score is not finite after its head's weight, or the weight is below 0; check the scores first, "
      "and give moderate weights of 0 or more");
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
                    " tokens but share a page table; use a policy with equal counts per head, such as "
                    ".with(heads::together{}), or give every head its own table");
}
[[noreturn]] inline void page_wise(char const* verb, char const* component) {
  contract::violate(verb, ": component ", component,
                    " is quantised per page and channel, so its tokens cannot move; plan with .with(select::pages{}) "
                    "and drop_pages instead");
}
[[noreturn]] inline void page_wise_slot(char const* component) {
  contract::violate("replace: component ", component,
                    " is quantised per page and channel, so a slot cannot take another token; plan with "
                    ".with(select::pages{}) and drop_pages instead");
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
                    " has one row for all heads; give it a row per head (head_stride), or keep the same tokens in all "
                    "heads, by .with(heads::together{})");
}
[[noreturn]] inline void layers_disagree(char const* verb, char const* do_what, std::int64_t sequence,
                                         std::int64_t head, std::int64_t layer) {
  contract::violate(
      contract::at(sequence, head), verb, ": sequence ", sequence, ", head ", head, " is of layer ", layer, " and ",
      do_what,
      "s other tokens than layer 0, but all layers have one row of positions; give positions a row per layer "
      "(layer_stride), or keep the same tokens in all layers, by .with(layers::together{})");
}

}  // namespace messages
}  // namespace KVEVICT_ABI
}  // namespace kvevict
