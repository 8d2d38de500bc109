// SPDX-License-Identifier: Apache-2.0
// What a plan does to a sequence and its rows: decided here once, for every context.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include <kvevict/cache/layer_view.hpp>
#include <kvevict/core/contract.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/evidence/budget.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// Whether the heads of a sequence draw on one budget; `cap`: the budget is a cap (0: none) on rows that are scored in
/// any case.
enum class sharing : std::uint8_t { none, heads, cap };

namespace planning {

/// What a plan does to one sequence, from its lengths alone. Shared by all contexts.
struct sequence_plan {
  enum class fault : std::uint8_t { none, negative_budget, budget_below_protected };

  std::int32_t asked, front, back, protected_tokens, budget;
  std::int64_t total;  // tokens of all heads
  bool cut;
  fault wrong;
};

template <class Layers>
constexpr sequence_plan plan_sequence(protect const& keep, Layers const& layers, budget const& want, sharing share,
                                      std::int32_t b, std::int32_t heads, std::int64_t total, std::int32_t longest,
                                      std::int32_t read_only) {
  sequence_plan p{want.of(b), 0, 0, 0, 0, total, false, sequence_plan::fault::none};
  if (p.asked < 0) {
    p.wrong = sequence_plan::fault::negative_budget;
    return p;
  }
  if (share == sharing::cap && p.asked == 0) p.asked = std::numeric_limits<std::int32_t>::max();
  p.cut =
      share == sharing::cap || (share == sharing::heads ? total > std::int64_t{p.asked} * heads : longest > p.asked);
  if (!p.cut) return p;
  p.front = keep.front(read_only), p.back = keep.back(want.of(b), read_only);
  p.protected_tokens = static_cast<std::int32_t>(std::min<std::int64_t>(longest, std::int64_t{p.front} + p.back));
  if (p.asked < p.protected_tokens)
    p.wrong = sequence_plan::fault::budget_below_protected;
  else
    p.budget = longest > p.asked
                   ? layers(layer_query{p.asked, p.protected_tokens, longest, want.layer, want.layer_count})
                   : p.asked;
  return p;
}

/// The evictable interval of one row in order: all but the `front` first and `back` newest tokens.
constexpr void protect_interval(row& it, std::int32_t front, std::int32_t back) {
  it.first = std::min(front, it.tokens);
  it.last = std::max(it.first, it.tokens - back);
  it.candidates = it.last - it.first;
}

/// The first rank behind a position; the largest has none, and is found not to be in the interval.
constexpr std::int32_t behind(std::int32_t position) {
  return position == std::numeric_limits<std::int32_t>::max() ? position : position + 1;
}

/// Whether a row whose interval is known is scored, and its budget.
constexpr void assign_budget(row& it, sequence_plan const& p, sharing share, std::int32_t heads) {
  it.active = share == sharing::cap     ? it.candidates > 0
              : share == sharing::heads ? p.total > std::int64_t{p.budget} * heads
                                        : it.tokens > p.budget;
  it.budget = !it.active ? it.tokens : share == sharing::cap ? std::min(p.budget, it.tokens) : p.budget;
}

/// Turns a row whose interval excludes the new tokens into one that observe() reads: all tokens, the new ones known by
/// `fresh`.
template <class Layers>
constexpr void observe_all(row& it, bool scattered, protect const& keep, Layers const& layers, budget const& want) {
  std::int64_t const ends = std::int64_t{keep.front(0)} + keep.back(want.of(it.sequence), 0);
  it.new_from = it.candidates == 0 ? std::numeric_limits<std::int32_t>::min() : it.last;
  it.first = scattered ? std::numeric_limits<std::int32_t>::min() : 0;
  it.last = scattered ? std::numeric_limits<std::int32_t>::max() : it.tokens;
  it.budget = want.of(it.sequence);
  if (it.tokens > it.budget)
    it.budget = layers(layer_query{it.budget, static_cast<std::int32_t>(std::min<std::int64_t>(ends, it.budget)),
                                   it.tokens, want.layer, want.layer_count});
  it.candidates = it.tokens;
  it.active = true;
}

/// A row of observe() whose older tokens have no state yet: all are as if they had just arrived.
constexpr void start_at_zero(row& it) { it.new_from = std::numeric_limits<std::int32_t>::min(); }
constexpr bool starts_at_zero(row const& it) { return it.new_from == std::numeric_limits<std::int32_t>::min(); }

/// A row that observe() neither reads nor writes: no candidates, not active.
constexpr void leave_out(row& it) { it.candidates = 0, it.active = false; }

inline void expect_request(char const* verb, protect const& keep, budget const& want, std::int32_t layers) {
  KVEVICT_EXPECTS(want.layer_count <= most_layers, verb, ": a stack of ", want.layer_count, " layers; give at most ",
                  most_layers);
  KVEVICT_EXPECTS(layers >= 1 && want.layer >= 0 && want.layer <= std::int64_t{want.layer_count} - layers, verb,
                  ": layer ", want.layer, " of ", want.layer_count, " and a view of ", layers,
                  "; give budget.layer in [0, budget.layer_count), for a stack that of its first layer");
  KVEVICT_EXPECTS(keep.sinks >= 0 && keep.recent >= 0 && keep.recent_permille >= 0 && keep.recent_permille <= 1000,
                  verb, ": protect has a negative count or a share above 1000 permille; give sinks, recent ≥ 0");
}
template <class Entry> void expect_positions(char const* verb, layer_view<Entry> const& cache) {
  KVEVICT_EXPECTS(cache.order == row_order::ascending || cache.find(role::position) != nullptr, verb,
                  ": the rows are scattered and the cache has no position component, so recency is unknown; add one "
                  "(role::position, "
                  "int32) or compact with compaction::stable");
}

}  // namespace planning

}  // namespace KVEVICT_ABI
}  // namespace kvevict
