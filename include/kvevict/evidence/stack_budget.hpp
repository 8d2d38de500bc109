// SPDX-License-Identifier: Apache-2.0
// The budget that the heads of all layers of a view share: one unit, whose division is a heads stage's.
#pragma once

#include <algorithm>
#include <cstdint>

#include <kvevict/cache/layer_view.hpp>
#include <kvevict/evidence/budget.hpp>
#include <kvevict/evidence/planning.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace planning {

/// Tokens of a row of the unit: of the view, or of any head of the model where the view holds only some of them.
template <class Entry>
constexpr std::int32_t unit_tokens(layer_view<Entry> const& cache, budget const& want, std::int32_t b, std::int32_t h) {
  return want.head_count == 0 ? cache.length(b, h)
                              : want.lengths(cache.pages.sequence_of(b), want.layer + cache.pages.layer_of(b), h);
}

/// Heads whose layers are a unit: all of the model's, or one of the view.
struct unit_heads {
  std::int32_t first = 0, count = 1;  // as the model counts
};
template <class Entry> constexpr unit_heads heads_of_unit(layer_view<Entry> const& cache, budget const& want) {
  return {0, want.head_count == 0 ? cache.heads() : want.head_count};
}
constexpr unit_heads head_of_unit(budget const& want, std::int32_t h) { return {want.head + h, 1}; }

/// What a plan does to layer-and-sequence b of a view whose layers share a budget: the unit is the sequence's heads in
/// all layers of the view, but for layers that are kept whole; those take no part.
///
///   Σ tokens ≤ Σ budgets: whole.   Else Σ kept = Σ budgets, over layers and heads, by a stage that knows the scores
///
/// O(L·H), no memory.
template <class Entry>
constexpr sequence_plan plan_stack(protect const& keep, layer_view<Entry> const& cache, budget const& want,
                                   std::int32_t b, unit_heads const& of, std::int32_t page) {
  sequence_plan p{};
  std::int32_t const S = cache.sequences() / cache.pages.layers, end = of.first + of.count;
  bool asks = true;
  p.page = page;
  for (std::int32_t row = cache.pages.sequence_of(b); row < cache.sequences(); row += S) {
    if (want.keeps_whole(row)) continue;
    if (row == b) p.first_part = p.parts + want.head - of.first;
    p.parts += of.count, p.budget += std::int64_t{want.of(row)} * of.count, asks = asks && want.of(row) >= 1;
    for (std::int32_t h = of.first; h < end; ++h) {
      std::int32_t const n = unit_tokens(cache, want, row, h);
      p.total += n, p.rests += n % page;
      if (row == b) p.longest = std::max(p.longest, n);
    }
  }
  p.asked = asks && p.parts > 0 ? static_cast<std::int32_t>(p.budget / p.parts) : want.of(b);
  if (want.of(b) < 1) p.wrong = sequence_plan::fault::no_budget;
  for (std::int32_t h = 0; h < cache.heads() && p.wrong == sequence_plan::fault::none; ++h) {
    std::int32_t const given = unit_tokens(cache, want, b, want.head + h), has = cache.length(b, h);
    if (given == has) continue;
    p.wrong = sequence_plan::fault::other_lengths;
    p.layer = want.layer + cache.pages.layer_of(b), p.head = h, p.given = given, p.has = has;
  }
  p.cut = asks && p.total > p.budget;
  if (p.cut && p.wrong == sequence_plan::fault::none)
    find_protected(p, keep, cache.read_only_tokens(b), p.longest);  // each layer is at fault for its own
  return p;
}

}  // namespace planning
}  // namespace KVEVICT_ABI
}  // namespace kvevict
