// SPDX-License-Identifier: Apache-2.0
// Layer budgets that fall in a line from the bottom layer to the top.
#pragma once

#include <kvevict/core/apportion.hpp>
#include <kvevict/core/contract.hpp>
#include <kvevict/layers/layers.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace layers {

/// Budgets on a falling line over the layers, with the mean that was asked for.
///
///   base = budget − protected;  lo = base/β, hi = 2·base − lo;  hi > M ⇒ hi = M, lo = 2·base − M;   M = N − protected
///   B_l = hi − (hi − lo)·l/(L−1) + protected                    layer 0 has hi; L = 1 keeps the budget
///
/// Budget moves within a unit: a head's layers, under a heads stage all heads' layers. N is that of its longest layer.
/// A unit that fits its whole budget is kept whole; else every layer gets its B_l (times H under a heads stage), cut to
/// what the layer holds, and what was cut goes to layers with room by largest remainder: Σ = L·budget exactly, on every
/// turn. That takes all layers' lengths: a stack of all has them, layer by layer `budget::lengths` tells them. Without
/// them N = ∞, each layer keeps min(N, B_l), and Σ ≤ L·budget is all that is promised: less than the budget while hi is
/// beyond the tokens there are, also where the prompt would have fitted. Layers that are kept whole (budget.whole,
/// outcomes) count as the others do, with the mean of their budgets: the others keep their places on the line.
///
/// Paper    PyramidKV, Cai et al. 2024, arXiv:2406.02069.   Differs: the line is held in integers over β·(L−1) and
///          rounded by largest remainder (ties: lower layer); layers of different lengths, see above.
///          `rounding::authors` floors the step and drifts; every layer then bends the line at its own N, and is cut
///          when it exceeds the mean.
/// Cost     O(L log) integer operations a unit, under a heads stage O(L·H log); no memory.
/// Errors   contract_violation if β ∉ [1, 65536] or layer ∉ [0, layer_count).
struct pyramid {
  using stage = stages::layers;
  std::int32_t beta = 20;
  rounding round = rounding::exact;

  void validate() const {
    KVEVICT_EXPECTS(beta >= 1 && beta <= 1 << 16, "pyramid: beta is ", beta,
                    "; give 1 to 65536, the paper uses 20, 1 makes all layers equal");
  }

  /// The rest is about units, see planning.
  constexpr bool moves_budget() const { return round == rounding::exact; }

  /// Evictable tokens of a head in each layer, over β·(L−1).
  struct numerators {
    std::int64_t highest = 0, step = 0;
    constexpr std::int64_t operator()(std::int64_t l) const { return highest - step * l; }
  };

  /// Σ share = L·base. q.tokens: of the longest layer.
  constexpr rounded_parts<numerators> line_of(layer_query const& q) const {
    std::int64_t const base = q.tokens_per_head - q.protected_tokens, room = q.tokens - q.protected_tokens,
                       n = q.layer_count;
    if (n == 1) return {{base, 0}, 1, 1, base};
    std::int64_t hi = (std::int64_t{2} * beta - 1) * base, lo = base;  // numerators over β
    if (hi > room * beta) hi = room * beta, lo = 2 * base * beta - hi;
    return {{hi * (n - 1), hi - lo}, beta * (n - 1), n, n * base};
  }

  /// Of one layer by itself, as if all were as long.
  constexpr std::int32_t operator()(layer_query const& q) const {
    if (q.layer_count == 1) return q.tokens_per_head;
    std::int64_t const evictable = round == rounding::exact ? line_of(q).share(q.layer) : authors(q);
    return static_cast<std::int32_t>(evictable) + q.protected_tokens;
  }

 private:
  constexpr std::int64_t authors(layer_query const& q) const {
    std::int64_t const base = q.tokens_per_head - q.protected_tokens, room = q.tokens - q.protected_tokens;
    std::int64_t lo = base / beta, hi = 2 * base - lo;
    if (hi >= room) hi = room, lo = 2 * base - room;
    return hi - q.layer * ((hi - lo) / (q.layer_count - 1));
  }
};

}  // namespace layers
}  // namespace KVEVICT_ABI
}  // namespace kvevict
