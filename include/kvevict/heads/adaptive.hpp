// SPDX-License-Identifier: Apache-2.0
// Head budgets that follow where the layer's best scores lie.
#pragma once

#include <kvevict/core/apportion.hpp>
#include <kvevict/core/contract.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/heads/heads.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace v0 {
namespace heads {

/// Each head gets as many tokens as it has among the best of the whole layer, above a floor that every head keeps.
///
///   base = budget − protected;  f_h = tokens of head h among the H·base best of the layer;  B_h = (1−α)·f_h + α·base + protected
///
/// Paper    Ada-KV, Feng et al., NeurIPS 2025, arXiv:2407.11550.   Differs: α is a whole number of permille and the rounding is by
///          largest remainder in int64 (ties: lower head), so Σ B_h = H·budget exactly; the window never eats the floor.
///          `rounding::authors` is the published code's round_half_even((1−α)·f_h + ⌊α·base⌋), which misses its budget; with it,
///          `head_weights` may scale the scores for the allocation (the code's option `normalize`).
/// Shapes   scores (H,M) of one sequence → budgets (H).
/// Cost     one pass over the scores of the layer and O(H²) integers; scratch 16 bytes a token at most.
/// Errors   contract_violation if α ∉ [0, 1000] permille.
struct adaptive {
  using stage = stages::heads;
  static constexpr bool equal_counts = false;
  std::int32_t floor_permille = 200;
  rounding round = rounding::exact;
  float const* head_weights = nullptr;  // (H), or null

  template <class Context> std::int64_t workspace_bytes(Context const& ctx, cache_shape const& s) const {
    return scratch_step(s.kv_heads * 4) + scratch_step(3 * 8 * s.kv_heads) + kernels::count_best.bytes(ctx, s);
  }

  template <class Context> void operator()(Context& ctx, score_rows& rows) const {
    KVEVICT_EXPECTS(floor_permille >= 0 && floor_permille <= 1000, "adaptive: floor_permille is ", floor_permille,
                    "; it is α in thousandths, 0 to 1000");
    frame scratch(ctx.scratch());
    auto* counts = scratch.template take<std::int32_t>(rows.heads);    // (H)
    auto* integers = scratch.template take<std::int64_t>(3 * rows.heads);  // numerators, caps, shares
    for (std::int32_t b = 0; b < rows.sequences; ++b) {
      slice<row> const of{rows.rows + std::int64_t{b} * rows.heads, rows.heads};
      if (of.empty() || !of[0].active) continue;
      std::int64_t const pooled = contract::pooled_quota(rows, b);
      kernels::count_best(ctx, rows, b, best_of{pooled, 0, head_weights}, counts);
      if (round == rounding::exact) allocate(of, counts, pooled, integers);
      else allocate_as_authors(of, counts);
    }
  }

 private:
  void allocate(slice<row> of, std::int32_t const* counts, std::int64_t pooled, std::int64_t* integers) const {
    std::int64_t const n = of.size;
    std::int64_t *numerators = integers, *caps = integers + n, *shares = integers + 2 * n;
    for (std::int64_t h = 0; h < n; ++h) {
      numerators[h] = (1000 - floor_permille) * n * counts[h] + floor_permille * pooled;
      caps[h] = of[h].candidates;
    }
    apportion(numerators, 1000 * n, caps, n, pooled, shares);
    for (std::int64_t h = 0; h < n; ++h) of[h].budget = of[h].protected_tokens() + static_cast<std::int32_t>(shares[h]);
  }

  void allocate_as_authors(slice<row> of, std::int32_t const* counts) const {
    for (std::int64_t h = 0; h < of.size; ++h) {
      std::int64_t const floor = std::int64_t{floor_permille} * of[h].quota() / 1000;
      std::int64_t const x = (1000 - floor_permille) * std::int64_t{counts[h]} + 1000 * floor, whole = x / 1000, part = x % 1000;
      std::int64_t const rounded = whole + (part > 500 || (part == 500 && whole % 2 != 0) ? 1 : 0);
      std::int64_t const share = rounded < of[h].candidates ? rounded : of[h].candidates;
      of[h].budget = of[h].protected_tokens() + static_cast<std::int32_t>(share);
    }
  }
};

}  // namespace heads
}  // namespace v0
}  // namespace kvevict
