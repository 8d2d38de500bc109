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
/// Paper    PyramidKV, Cai et al. 2024, arXiv:2406.02069.   Differs: the line is held in integers over β·(L−1) and
///          rounded by largest remainder (ties: lower layer), so Σ B_l = L·budget exactly, for every prompt;
///          `rounding::authors` floors the step and drifts.
/// Cost     O(L) integer operations a sequence, no memory.
/// Errors   contract_violation if β ∉ [1, 65536] or layer ∉ [0, layer_count).
struct pyramid {
  using stage = stages::layers;
  std::int32_t beta = 20;
  rounding round = rounding::exact;

  void validate() const {
    KVEVICT_EXPECTS(beta >= 1 && beta <= 1 << 16, "pyramid: beta is ", beta,
                    "; give 1 to 65536, the paper uses 20, 1 makes all layers equal");
  }

  constexpr std::int32_t operator()(layer_query const& q) const {
    std::int64_t const base = q.tokens_per_head - q.protected_tokens, room = q.tokens - q.protected_tokens,
                       n = q.layer_count;
    if (n == 1) return q.tokens_per_head;
    std::int64_t const evictable =
        round == rounding::exact ? line(base, room, q.layer, n) : authors(base, room, q.layer, n);
    return static_cast<std::int32_t>(evictable) + q.protected_tokens;
  }

 private:
  constexpr std::int64_t authors(std::int64_t base, std::int64_t room, std::int64_t l, std::int64_t n) const {
    std::int64_t lo = base / beta, hi = 2 * base - lo;
    if (hi >= room) hi = room, lo = 2 * base - room;
    return hi - l * ((hi - lo) / (n - 1));
  }

  /// B_l·β·(L−1) is whole: floors, then one more to the layers with the largest remainders.
  constexpr std::int64_t line(std::int64_t base, std::int64_t room, std::int64_t l, std::int64_t n) const {
    std::int64_t hi = (std::int64_t{2} * beta - 1) * base, lo = base;  // numerators over β
    if (hi > room * beta) hi = room * beta, lo = 2 * base * beta - hi;
    std::int64_t const den = beta * (n - 1);
    auto const numerator = [&](std::int64_t i) { return hi * (n - 1) - (hi - lo) * i; };
    std::int64_t const mine = numerator(l) % den;
    std::int64_t left = n * base, ahead = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      left -= numerator(i) / den;
      std::int64_t const r = numerator(i) % den;
      ahead += r > mine || (r == mine && i < l);
    }
    return numerator(l) / den + (ahead < left ? 1 : 0);
  }
};

}  // namespace layers
}  // namespace KVEVICT_ABI
}  // namespace kvevict
