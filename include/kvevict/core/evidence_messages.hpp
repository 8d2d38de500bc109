// SPDX-License-Identifier: Apache-2.0
// What is said of rows of evidence, in every context: each text stands here, once.
#pragma once

#include <cmath>
#include <cstdint>

#include <kvevict/core/contract.hpp>
#include <kvevict/core/messages.hpp>
#include <kvevict/core/older_tokens.hpp>
#include <kvevict/core/queries.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace messages {

[[noreturn]] inline void row_begin_starts(std::int32_t at) {
  contract::violate("evidence: row_begin starts at ", at, "; it must be B+1 ascending offsets, none negative");
}
[[noreturn]] inline void row_begin_descends(std::int32_t sequence) {
  contract::violate("evidence: row_begin descends at ", of_sequence(sequence), "; it must be B+1 ascending offsets");
}
[[noreturn]] inline void row_count(std::int32_t sequence, std::int64_t begin, std::int64_t count) {
  contract::violate("evidence: ", of_sequence(sequence), " provides ", count, " rows from row ", begin,
                    " on; give row_begin and row_count (B), none negative");
}
[[noreturn]] inline void rows_behind(std::int32_t sequence, std::int64_t begin, std::int64_t count) {
  contract::violate("evidence: ", of_sequence(sequence), " provides ", count, " rows from row ", begin,
                    " on, which reach behind its part of a padded batch; give row_count (B), the rows that are no "
                    "padding, and row_begin (B), what lies on their left");
}
[[noreturn]] inline void no_data() {
  contract::violate("evidence: rows without data or row_begin; provide (T,Hq,…) rows with their (B+1) offsets");
}
[[noreturn]] inline void softmax_slots(std::int64_t slots, std::int32_t sequence, std::int32_t head,
                                       std::int64_t tokens) {
  contract::violate("evidence: a softmax row has ", slots, " floats and ", row(sequence, head), " ", tokens,
                    " tokens; provide one weight per slot and say how many in attention_rows::slots");
}

/// Alike in every context, whose last digits differ.
inline double rounded(double sum) { return std::round(sum * 1000) / 1000; }

/// Of row `row_of` of the sequence's, by the LSE that was given for it.
[[noreturn]] inline void weight_sum(std::int32_t sequence, std::int32_t head, std::int64_t q_head, std::int64_t row_of,
                                    double sum, float lse, log_base base) {
  double const log = std::log(sum), given = static_cast<double>(lse);
  // ln Σ exp(logits) of a row, by what the sum says, against what the given number would be in the other base
  double const natural = (base == log_base::e ? given : given * 0.69314718055994531) + log;
  double const in_other_base = base == log_base::e ? given * 0.69314718055994531 : given;
  bool const other_base = std::fabs(natural - in_other_base) < 0.02 * std::fabs(given) + 0.01;
  char const* const cause =
      lse - lse != 0 ? "the LSE is infinite; give the row's log-sum-exp, -inf for a row that sees no token"
      : other_base && base == log_base::e
          ? "the LSE looks like one of base two, as FlashInfer gives it; say log_base::two"
      : other_base ? "the LSE looks like a natural one; say log_base::e"
      : sum > 1    ? "the scale, the softcap or the log_base is not the one that the engine's softmax used, the LSE "
                     "belongs to other rows, or a key or query is infinite"
                   : "the scale, the softcap, the log_base or what a row sees is not what the engine's softmax used; "
                     "where that went over more tokens (of other shards, evicted since, a learned sink), say so: "
                     ".with_lse(…).partial()";
  contract::violate("evidence: ", row(sequence, head), ": the attention weights of row ", row_of, " of query head ",
                    q_head, " add up to ", rounded(sum), " instead of 1, by an LSE of ", lse, "; ", cause);
}
/// Of softmax rows.
[[noreturn]] inline void softmax_sum(std::int32_t sequence, std::int32_t head, std::int64_t q_head, std::int64_t row_of,
                                     double sum) {
  contract::violate("evidence: ", row(sequence, head), ": softmax row ", row_of, " of query head ", q_head,
                    " adds up to ", rounded(sum),
                    " instead of 1 over the tokens that it sees; provide normalised attention "
                    "weights, each in its token's column, and say with .partial() where more tokens took part");
}

// Of plan.
[[noreturn]] inline void too_few_queries(std::int32_t sequence, std::int64_t rows, std::int64_t needed) {
  contract::violate("window_scores: ", of_sequence(sequence), " provides ", rows, " query rows and the window needs ",
                    needed, "; provide the queries of its newest tokens");
}
[[noreturn]] inline void too_few_softmax_rows(std::int32_t sequence, std::int64_t rows, std::int64_t needed) {
  contract::violate("evidence: ", of_sequence(sequence), " provides ", rows, " softmax rows and the score reads ",
                    needed, "; provide the rows of its newest tokens");
}
/// `whose`: "column_sums" of query rows, "evidence" of softmax rows.
[[noreturn]] inline void not_all_rows(char const* whose, std::int32_t sequence, std::int64_t rows, char const* what,
                                      std::int64_t tokens) {
  contract::violate(whose, ": ", of_sequence(sequence), " provides ", rows, " ", what, " rows for ", tokens,
                    " tokens; accumulated attention of a prompt needs a row of every token in the cache, and no other; "
                    "behind padding, in a shard or after an eviction, where there are more or fewer, observe the rows "
                    "and plan from remembered(cache)");
}
[[noreturn]] inline void too_few_tokens(std::int64_t rows, std::int32_t sequence, std::int64_t tokens) {
  contract::violate("window_weights: ", rows, " rows are asked for and ", of_sequence(sequence), " has ", tokens,
                    " tokens; ask for no more rows than every sequence has");
}

// Of observe.
[[noreturn]] inline void no_positions() {
  contract::violate(
      "observe: the rows carry no positions; give each its token's logical position, which eviction does not change");
}
[[noreturn]] inline void more_rows_than_tokens(std::int32_t sequence, std::int32_t head, std::int64_t rows,
                                               std::int64_t tokens) {
  contract::violate(contract::at(sequence, head), "observe: ", rows, " rows for ", tokens,
                    " tokens; append the new tokens to the cache first, one row each; a shard observes chunks of no "
                    "more rows than it has tokens");
}
/// `older` tokens, of which `known` can have been observed: the first row's position, or what the gate's memory holds.
/// Of rows before the newest token: its position, and that of the last row. Of tokens without a row, or rows without a
/// token: how many tokens and how many rows.
[[noreturn]] inline void older_tokens(older_fault what, std::int32_t sequence, std::int32_t head, std::int64_t older,
                                      std::int64_t known) {
  if (what == older_fault::at_zero)
    contract::violate("observe: the first row of ", row(sequence, head), " is at position 0, but ", older,
                      " tokens come before it; give logical positions, not those in a chunk; state of tokens before a "
                      "beginning starts at zero with with_older(older_tokens::zero)");
  if (what == older_fault::before_position)
    contract::violate("observe: ", older, " tokens of ", row(sequence, head),
                      " come before its first row, which is at position ", known,
                      "; give logical positions, and a row of each of the newest tokens; of a cache that holds drafts "
                      "behind the rows, a view whose lengths leave them out");
  if (what == older_fault::rows_before_newest)
    contract::violate("observe: the newest row of ", row(sequence, head), " is at position ", known,
                      " and the newest token at ", older,
                      ", so that tokens lie behind the rows (drafts), whose state would be taken for theirs; observe a "
                      "view whose lengths leave them out, or observe before they are written");
  if (what == older_fault::tokens_without_row)
    contract::violate("observe: ", older, " tokens of ", row(sequence, head),
                      " lie from the position of its first row on, and there are ", known,
                      " rows, so that some have none; give every new token its row and its logical position");
  if (what == older_fault::rows_without_token)
    contract::violate("observe: ", known, " rows of ", row(sequence, head), " for ", older,
                      " tokens from the position of the first one on; append the rows' tokens to the cache first; of a "
                      "shard, where other processes hold them, give the LSE or softmax rows and say .partial()");
  if (what == older_fault::before_memory)
    contract::violate("observe: ", older, " tokens of ", row(sequence, head),
                      " come before its hidden states and the gate's memory holds ", known,
                      "; observe every token, or start them at zero with with_older(older_tokens::zero)");
  contract::violate("observe: ", older, " tokens of ", row(sequence, head),
                    " come before its new rows, and their state is whatever their pages held; say that earlier calls "
                    "have observed them, with step() or with_older(older_tokens::observed), or start them at zero with "
                    "with_older(older_tokens::zero)");
}
[[noreturn]] inline void scattered_rows(std::int32_t sequence, std::int32_t head) {
  contract::violate(
      contract::at(sequence, head),
      "observe: the rows are scattered, and of several hidden states nobody knows whose each is; observe single steps");
}

// Of rings of queries.
[[noreturn]] inline void ring_positions(std::int32_t sequence) {
  contract::violate("push: positions of the rows of ", of_sequence(sequence),
                    " are negative or do not ascend; give each row its token's logical position, oldest first");
}
[[noreturn]] inline void no_ring(std::int32_t sequence, std::int64_t begin, std::int64_t count) {
  contract::violate("push: the ring of ", of_sequence(sequence), " has ", count, " rows from ", begin,
                    " on, which no ring has; zero begin and count before the first call");
}

// Of gates.
[[noreturn]] inline void no_hidden_states() {
  contract::violate("gate: hidden states without data or row_begin; provide (T,E) rows with their (B+1) offsets");
}
[[noreturn]] inline void not_the_prompt(std::int32_t sequence, std::int64_t rows, std::int64_t tokens) {
  contract::violate(
      "gate: ", of_sequence(sequence), " provides ", rows, " hidden states for ", tokens,
      " tokens in order; plan from a whole prompt, or observe its chunks and plan from remembered(cache)");
}
[[noreturn]] inline void gate_memory_holds(std::int64_t tokens, std::int32_t sequence) {
  contract::violate("gate: the memory already holds ", tokens, " tokens of ", of_sequence(sequence),
                    ", so that its hidden states would follow them; plan from remembered(cache), or provide a prompt "
                    "without the memory");
}
[[noreturn]] inline void gate_memory_full(std::int64_t earlier, std::int64_t rows, std::int32_t sequence,
                                          std::int64_t capacity) {
  contract::violate("gate: ", earlier, " + ", rows, " tokens of ", of_sequence(sequence), " do not fit the memory's ",
                    capacity, "; make gate_memory larger");
}
[[noreturn]] inline void gate_continues(std::int32_t sequence, std::int64_t earlier) {
  contract::violate("gate: ", of_sequence(sequence), " continues after ", earlier,
                    " tokens, but a bidirectional gate reads a complete prompt at once; use gate_mask::causal for "
                    "chunks");
}
[[noreturn]] inline void gate_not_a_number(std::int32_t sequence) {
  contract::violate(
      contract::at(sequence),
      "gate: a keep probability is not a number; look for values that are not finite in the gate's weights and in the "
      "hidden states");
}

}  // namespace messages
}  // namespace KVEVICT_ABI
}  // namespace kvevict
