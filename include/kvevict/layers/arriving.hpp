// SPDX-License-Identifier: Apache-2.0
// Budgets of the layers that have been computed so far, while others are still to come.
#pragma once

#include <algorithm>
#include <cstdint>

#include <kvevict/core/apportion.hpp>
#include <kvevict/core/contract.hpp>
#include <kvevict/evidence/budget.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace layers {

// Where a prompt's layers are computed one by one, no view holds them all, and the first ones may keep what the others
// do not need yet: the budget of the whole model is that of the layers so far, and they shrink as others arrive. The
// engine does it: after each layer it plans those so far once more, with the budgets that these functions tell, and
// compacts. What a layer has evicted does not come back, and its scores must be those that it had (kept by the engine,
// or computed from evidence that eviction does not change).
//
//   promise   after layer m: Σ kept < L·budget + m (a head); after the last one: Σ ≤ L·budget

/// What each head of the first `so_far` layers is asked for, where one threshold divides it (heads::over_layers over a
/// view of them, budget.layer_count = so_far): ⌈L·budget / so_far⌉, which never grows, and ends at the budget; at most
/// budget::no_cap.
///
/// With no floor, no token that one plan of all layers keeps is evicted before: what is kept in the end is the same,
/// token for token, where no score has changed.
constexpr std::int32_t budget_so_far(std::int32_t tokens_per_head, std::int32_t so_far, std::int32_t layer_count) {
  std::int64_t const all = std::int64_t{tokens_per_head} * layer_count;
  return static_cast<std::int32_t>(std::min<std::int64_t>((all + so_far - 1) / so_far, budget::no_cap));
}

/// What each head of layer l < so_far is asked for, by the weights of the layers so far (a table's, or as in LAVa and
/// CAKE the entropy of the layer's scores when it was computed: score_histogram::entropy_of): budgets[l] =
/// base·L·weight(l) / Σ weight + protected, by largest remainder (ties: lower layer), but not more than caps[l] tokens,
/// and the rest to others: Σ = min(Σ caps, L·(budget − protected) + so_far·protected).
///
/// Shapes   weights, caps (so_far) → budgets (so_far), in the host's memory. All weights 0: evenly.
/// Cost     O(so_far·log total) integers, `integers` (3·so_far) is scratch.
/// Errors   contract_violation: no layer, more than layer_count, a weight outside [0, 2²⁰], a cap or a budget below
///          what is protected.
inline void budgets_so_far(std::int64_t const* weights, std::int32_t const* caps, std::int32_t so_far,
                           std::int32_t layer_count, std::int32_t tokens_per_head, std::int32_t protected_tokens,
                           std::int64_t* integers, std::int32_t* budgets) {
  KVEVICT_EXPECTS(so_far >= 1 && so_far <= layer_count, "budgets_so_far: ", so_far, " layers of ", layer_count,
                  "; give 1 to all of them");
  KVEVICT_EXPECTS(protected_tokens >= 0 && tokens_per_head >= protected_tokens, "budgets_so_far: a budget of ",
                  tokens_per_head, " for ", protected_tokens, " protected tokens; give more, or protect less");
  std::int64_t sum = 0, room = 0;
  for (std::int32_t l = 0; l < so_far; ++l) {
    KVEVICT_EXPECTS(weights[l] >= 0 && weights[l] <= 1 << 20, "budgets_so_far: layer ", l, " weighs ", weights[l],
                    "; give 0 to ", 1 << 20);
    KVEVICT_EXPECTS(caps[l] >= protected_tokens, "budgets_so_far: layer ", l, " holds ", caps[l], " tokens, but ",
                    protected_tokens, " are protected; leave such a layer out, it keeps all");
    sum += weights[l], room += caps[l] - protected_tokens;
  }
  std::int64_t const wanted = std::int64_t{layer_count} * (tokens_per_head - protected_tokens);
  std::int64_t const total = wanted < room ? wanted : room;
  auto const out = divided(
      total, sum == 0 ? so_far : sum, so_far, integers,
      [&](std::int64_t l) { return total * (sum == 0 ? 1 : weights[l]); },
      [&](std::int64_t l) -> std::int64_t { return caps[l] - protected_tokens; });
  for (std::int32_t l = 0; l < so_far; ++l) budgets[l] = protected_tokens + static_cast<std::int32_t>(out.kept(l));
}

}  // namespace layers
}  // namespace KVEVICT_ABI
}  // namespace kvevict
