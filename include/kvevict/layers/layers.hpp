// SPDX-License-Identifier: Apache-2.0
// The layer stage: what each layer's budget is, from lengths, or once its scores are known.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>

#include <kvevict/evidence/budget.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

namespace layers {

/// Answers a query with a budget: tokens that every head of the layer keeps.
template <class Stage>
concept stage = std::is_same_v<stage_of<Stage>, stages::layers> && requires(Stage const& layers, layer_query const& q) {
  { layers(q) } -> std::convertible_to<std::int32_t>;
};

// A layer stage is called in every context, so it is constexpr and raises nothing; what it has to refuse, it refuses in
// `validate()`. One whose budgets are meant to sum to L·budget says `moves_budget()` and has `line_of(query)`: what
// each layer gets, by a `share(layer)` and a `remainder(layer)` below its `denominator`; planning then sees to the sum.
// One that does not look at the budget says `static constexpr bool ignores_budget = true`. One that goes by scores says
// `static constexpr bool after_scores = true` and has `divide(ctx, evidence, tokens, rows, sharing)`, see entropy.hpp.

/// Every layer keeps the same number of tokens.
struct uniform {
  using stage = stages::layers;
  static constexpr bool equal_budgets = true;
  constexpr std::int32_t operator()(layer_query const& q) const { return q.tokens_per_head; }
};

/// Every layer keeps everything.
struct unlimited {
  using stage = stages::layers;
  static constexpr bool ignores_budget = true;
  constexpr std::int32_t operator()(layer_query const& q) const { return std::max(q.tokens, q.tokens_per_head); }
};

}  // namespace layers
}  // namespace KVEVICT_ABI
}  // namespace kvevict
