// SPDX-License-Identifier: Apache-2.0
// What is said of rows of evidence, in every context: each text stands here, once.
#pragma once

#include <cstdint>

#include <kvevict/core/contract.hpp>
#include <kvevict/core/messages.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace messages {

[[noreturn]] inline void row_begin_starts(std::int32_t at) {
  contract::violate("evidence: row_begin starts at ", at, "; it must be B+1 ascending offsets, none negative");
}
[[noreturn]] inline void row_begin_descends(std::int32_t sequence) {
  contract::violate("evidence: row_begin descends at sequence ", sequence, "; it must be B+1 ascending offsets");
}
[[noreturn]] inline void no_data() {
  contract::violate("evidence: rows without data or row_begin; provide (T,Hq,…) rows with their (B+1) offsets");
}
[[noreturn]] inline void softmax_slots(std::int64_t slots, std::int32_t sequence, std::int32_t head,
                                       std::int64_t tokens) {
  contract::violate("evidence: a softmax row has ", slots, " floats and ", row(sequence, head), " ", tokens,
                    " tokens; provide one weight per slot and say how many in attention_rows::slots");
}

// Of plan.
[[noreturn]] inline void too_few_queries(std::int32_t sequence, std::int64_t rows, std::int64_t needed) {
  contract::violate("window_scores: sequence ", sequence, " provides ", rows, " query rows and the window needs ",
                    needed, "; provide the queries of its newest tokens");
}
[[noreturn]] inline void too_few_softmax_rows(std::int32_t sequence, std::int64_t rows, std::int64_t needed) {
  contract::violate("evidence: sequence ", sequence, " provides ", rows, " softmax rows and the score reads ", needed,
                    "; provide the rows of its newest tokens");
}
/// `whose`: "column_sums" of query rows, "evidence" of softmax rows.
[[noreturn]] inline void not_all_rows(char const* whose, std::int32_t sequence, std::int64_t rows, char const* what,
                                      std::int64_t tokens) {
  contract::violate(whose, ": sequence ", sequence, " provides ", rows, " ", what, " rows for ", tokens,
                    " tokens; accumulated attention needs a row of every token, or a state that observe has filled");
}
[[noreturn]] inline void too_few_tokens(std::int64_t rows, std::int32_t sequence, std::int64_t tokens) {
  contract::violate("window_weights: ", rows, " rows are asked for and sequence ", sequence, " has ", tokens,
                    " tokens; ask for no more rows than every sequence has");
}

// Of observe.
[[noreturn]] inline void no_positions() {
  contract::violate(
      "observe: the rows carry no positions; give each its token's logical position, which eviction does not change");
}
[[noreturn]] inline void unequal_rows(std::int32_t sequence, std::int64_t rows, std::int64_t first) {
  contract::violate("observe: sequence ", sequence, " provides ", rows, " rows and sequence 0 ", first,
                    "; observe prompts and steps in separate calls");
}
[[noreturn]] inline void no_rows(std::int64_t tokens) {
  contract::violate("observe: no rows for ", tokens, " tokens; append the new tokens to the cache first, one row each");
}
[[noreturn]] inline void more_rows_than_tokens(std::int64_t rows, std::int64_t tokens) {
  contract::violate("observe: ", rows, " rows for ", tokens,
                    " tokens; append the new tokens to the cache first, one row each");
}
[[noreturn]] inline void scattered_rows() {
  contract::violate("observe: the rows are scattered; only single steps can be observed");
}

// Of gates.
[[noreturn]] inline void no_hidden_states() {
  contract::violate("gate: hidden states without data or row_begin; provide (T,E) rows with their (B+1) offsets");
}
[[noreturn]] inline void not_the_prompt(std::int32_t sequence, std::int64_t rows, std::int64_t tokens) {
  contract::violate(
      "gate: sequence ", sequence, " provides ", rows, " hidden states for ", tokens,
      " tokens in order; plan from a whole prompt, or observe its chunks and plan from remembered(cache)");
}
[[noreturn]] inline void gate_memory_holds(std::int64_t tokens, std::int32_t sequence) {
  contract::violate("gate: the memory already holds ", tokens, " tokens of sequence ", sequence,
                    ", so that its hidden states would follow them; plan from remembered(cache), or provide a prompt "
                    "without the memory");
}
[[noreturn]] inline void gate_memory_full(std::int64_t earlier, std::int64_t rows, std::int32_t sequence,
                                          std::int64_t capacity) {
  contract::violate("gate: ", earlier, " + ", rows, " tokens of sequence ", sequence, " do not fit the memory's ",
                    capacity, "; make gate_memory larger");
}
[[noreturn]] inline void gate_continues(std::int32_t sequence, std::int64_t earlier) {
  contract::violate("gate: sequence ", sequence, " continues after ", earlier,
                    " tokens, but a bidirectional gate reads a complete prompt at once; use gate_mask::causal for "
                    "chunks");
}
[[noreturn]] inline void gate_not_a_number() {
  contract::violate(
      "gate: a keep probability is not a number; look for values that are not finite in the gate's weights and in the "
      "hidden states");
}

}  // namespace messages
}  // namespace KVEVICT_ABI
}  // namespace kvevict
