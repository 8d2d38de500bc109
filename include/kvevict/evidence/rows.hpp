// SPDX-License-Identifier: Apache-2.0
// From a cache, a budget and the protected tokens to the rows that a plan works on.
#pragma once

#include <algorithm>
#include <limits>

#include <kvevict/core/contract.hpp>
#include <kvevict/core/host.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/evidence/budget.hpp>
#include <kvevict/evidence/evidence.hpp>

namespace kvevict {
inline namespace v0 {

/// Whether the heads of a sequence draw on one budget; `cap`: the budget is a cap (0: none) on rows that are scored in any case.
enum class sharing : std::uint8_t { none, heads, cap };

namespace planning {

template <class Entry> score_rows make_rows(frame& scratch, layer_view<Entry> const& cache, std::int32_t layer) {
  std::int64_t const n = cache.rows();
  auto* begin = scratch.take<std::int64_t>(n + 1);
  auto* rows = scratch.take<row>(n);
  begin[0] = 0;
  for (std::int64_t r = 0; r < n; ++r) {
    auto const b = static_cast<std::int32_t>(r / cache.heads()), h = static_cast<std::int32_t>(r % cache.heads());
    std::int32_t const tokens = cache.length(b, h);
    rows[r] = {b, h, tokens, 0, tokens, tokens, tokens, false};
    begin[r + 1] = begin[r] + tokens;
  }
  score_rows out{rows, cache.sequences(), cache.heads(), begin, scratch.take<float>(begin[n]), nullptr, layer};
  if (cache.order == row_order::ascending) return out;
  component const* position = cache.find(role::position);
  KVEVICT_EXPECTS(position != nullptr, "plan: the rows are scattered and the cache has no position component, so recency is unknown; add "
                  "one (role::position, int32) or compact with compaction::stable");
  auto* positions = scratch.take<std::int32_t>(begin[n]);
  for (std::int64_t r = 0; r < n; ++r)
    for (std::int32_t j = 0; j < rows[r].tokens; ++j)
      positions[begin[r] + j] = element<std::int32_t const>(cache, *position, rows[r].sequence, rows[r].head, j);
  out.positions = positions;
  return out;
}

/// The evictable interval of one row, as ranks: all but the `front` first and `back` newest tokens.
inline void protect_ends(frame& scratch, score_rows const& rows, std::int64_t r, std::int32_t front, std::int32_t back) {
  row& it = rows.rows[r];
  it.first = std::min(front, it.tokens);
  it.last = std::max(it.first, it.tokens - back);
  it.candidates = it.last - it.first;
  if (rows.positions == nullptr || it.candidates == 0) return;
  auto* sorted = scratch.take<std::int32_t>(it.tokens);
  std::copy_n(rows.positions + rows.begin[r], it.tokens, sorted);
  std::int32_t const first = it.first, newest = it.last - 1;
  std::nth_element(sorted, sorted + first, sorted + it.tokens);
  it.first = sorted[first];
  std::nth_element(sorted, sorted + newest, sorted + it.tokens);
  it.last = sorted[newest] + 1;
}

}  // namespace planning

/// Scratch of the rows of one plan: their descriptions, scores and, where rows are scattered, positions.
constexpr std::int64_t rows_bytes(cache_shape const& s) {
  std::int64_t const n = s.rows(), per_token = scratch_step(n * s.tokens * 4), sorting = n * scratch_step(s.tokens * 4);
  return scratch_step((n + 1) * 8) + scratch_step(n * std::int64_t{sizeof(row)}) + 2 * per_token + sorting;
}

/// Rows with their budgets for plan(). Checks the budget against the protected tokens.
template <class Entry, class Layers>
score_rows plan_rows(frame& scratch, layer_view<Entry> const& cache, protect const& keep, Layers const& layers, budget const& want,
                     sharing share) {
  KVEVICT_EXPECTS(want.layer_count >= 1 && want.layer >= 0 && want.layer < want.layer_count, "plan: layer ", want.layer, " of ",
                  want.layer_count, "; give budget.layer in [0, budget.layer_count)");
  KVEVICT_EXPECTS(keep.sinks >= 0 && keep.recent >= 0 && keep.recent_permille >= 0 && keep.recent_permille <= 1000,
                  "plan: protect has a negative count or a share above 1000 permille; give sinks, recent ≥ 0");
  score_rows out = planning::make_rows(scratch, cache, want.layer);
  for (std::int32_t b = 0; b < cache.sequences(); ++b) {
    std::int32_t asked = want.of(b), H = cache.heads();
    KVEVICT_EXPECTS(asked >= 0, "plan: a budget of ", asked, " tokens for sequence ", b, "; give a count, not a negative number");
    if (share == sharing::cap && asked == 0) asked = std::numeric_limits<std::int32_t>::max();
    row* of = out.rows + std::int64_t{b} * H;
    std::int64_t total = 0;
    std::int32_t longest = 0;
    for (std::int32_t h = 0; h < H; ++h) total += of[h].tokens, longest = std::max(longest, of[h].tokens);
    bool const cut = share == sharing::cap || (share == sharing::heads ? total > std::int64_t{asked} * H : longest > asked);
    if (!cut) continue;
    std::int32_t const front = keep.front(cache.read_only_tokens(b)), back = keep.back(want.of(b), cache.read_only_tokens(b));
    std::int32_t const ends = std::min(longest, front + back);
    KVEVICT_EXPECTS(asked >= ends, "plan: a budget of ", asked, " tokens is below the ", ends, " protected tokens of sequence ", b, " (",
                    front, " at the front, ", back, " recent); raise tokens_per_head or protect fewer");
    std::int32_t const budget = longest > asked ? layers(layer_query{asked, ends, longest, want.layer, want.layer_count}) : asked;
    for (std::int32_t h = 0; h < H; ++h) {
      planning::protect_ends(scratch, out, std::int64_t{b} * H + h, front, back);
      of[h].active = share == sharing::cap ? of[h].candidates > 0 : share == sharing::heads ? total > std::int64_t{budget} * H : of[h].tokens > budget;
      of[h].budget = !of[h].active ? of[h].tokens : share == sharing::cap ? std::min(budget, of[h].tokens) : budget;
    }
  }
  return out;
}

/// How many new rows sequence b hands in, of attention or of hidden states.
template <class Evidence> std::int32_t new_rows(Evidence const& e, std::int32_t b) {
  if constexpr (has<Evidence, facts::features>) return e.input.rows(b);
  else return e.attention.rows(b);
}
/// The same of all sequences, which hand in equally many rows of attention; 0 for an empty batch.
template <class Evidence> std::int32_t new_rows(Evidence const& e) { return e.cache.sequences() == 0 ? 0 : new_rows(e, 0); }

namespace planning {

/// Rows of attention are folded one step at a time, all sequences together; hidden states may be as many as there are.
template <class Evidence> void expect_new_rows(Evidence const& e, std::int32_t b, std::int32_t tokens) {
  std::int32_t const rows = new_rows(e, b);
  if constexpr (!has<Evidence, facts::features>) {
    KVEVICT_EXPECTS(rows == 0 || e.attention.positions != nullptr,
                    "observe: the rows carry no positions; give each its token's logical position, which eviction does not change");
    KVEVICT_EXPECTS(rows == new_rows(e), "observe: sequence ", b, " hands in ", rows, " rows and sequence 0 ", new_rows(e),
                    "; observe prompts and steps in separate calls");
    KVEVICT_EXPECTS(rows >= 1, "observe: no rows for ", tokens, " tokens; append the new tokens to the cache first, one row each");
  }
  KVEVICT_EXPECTS(rows <= tokens, "observe: ", rows, " rows for ", tokens, " tokens; append the new tokens to the cache first, one row each");
  KVEVICT_EXPECTS(e.cache.order == row_order::ascending || rows <= 1, "observe: the rows are scattered; only single steps can be folded in");
}

}  // namespace planning

/// Rows for observe(): all of them and all their tokens, those that have just arrived from rank `fresh` on.
template <class Evidence, class Layers>
score_rows observe_rows(frame& scratch, Evidence const& e, protect const& keep, Layers const& layers, budget const& want) {
  score_rows out = planning::make_rows(scratch, e.cache, want.layer);
  for (std::int64_t r = 0; r < out.count(); ++r) {
    row& it = out.rows[r];
    std::int32_t const ends = keep.front(0) + keep.back(want.of(it.sequence), 0);
    planning::expect_new_rows(e, it.sequence, it.tokens);
    planning::protect_ends(scratch, out, r, 0, new_rows(e, it.sequence));
    it.fresh = it.candidates == 0 ? std::numeric_limits<std::int32_t>::min() : it.last;
    it.first = out.positions == nullptr ? 0 : std::numeric_limits<std::int32_t>::min();
    it.last = out.positions == nullptr ? it.tokens : std::numeric_limits<std::int32_t>::max();
    it.budget = want.of(it.sequence);
    if (it.tokens > it.budget) it.budget = layers(layer_query{it.budget, std::min(ends, it.budget), it.tokens, want.layer, want.layer_count});
    it.candidates = it.tokens;
    it.active = true;
  }
  return out;
}

}  // namespace v0
}  // namespace kvevict
