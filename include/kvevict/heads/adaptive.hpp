// SPDX-License-Identifier: Apache-2.0
// Head budgets that follow where the layer's best scores lie.
#pragma once

#include <kvevict/core/apportion.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/heads/heads.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace heads {

/// Each head gets as many tokens as it has among the best of the whole layer, above a floor that every head keeps.
///
///   base = budget − protected;  f_h = tokens of head h among the H·base best of the layer;  B_h = (1−α)·f_h + α·base +
///   protected
///
/// Paper    Ada-KV, Feng et al., NeurIPS 2025, arXiv:2407.11550.   Differs: α is a whole number of permille and the
///          rounding is by largest remainder in int64 (ties: lower head), so Σ B_h = H·budget exactly; the window never
///          eats the floor.
///          `rounding::authors` is the published code's round_half_even((1−α)·f_h + ⌊α·base⌋), which misses its budget.
///          `head_weights` multiply the scores of a head for the allocation, in either rounding (the code's option
///          `normalize`); in the memory of the context, and not in the selection that follows.
/// Shapes   scores (H,M) of one sequence → budgets (H).
/// Cost     one pass over the scores of the layer and O(H log budget) integers; scratch 16 bytes a token at most.
/// Errors   contract_violation if α ∉ [0, 1000] permille, or a head's weight is below 0 or a score times it
///          not finite.
struct adaptive {
  using stage = stages::heads;
  static constexpr bool equal_counts = false;
  std::int32_t floor_permille = 200;
  rounding round = rounding::exact;
  float const* head_weights = nullptr;  // (H), or null

  template <class Context> std::int64_t workspace_bytes(Context const& ctx, cache_shape const& s) const {
    return scratch_step(s.rows() * 4) + scratch_step(s.rows() * listed_parts::integers * 8) +
           kernels::count_pooled.bytes(ctx, s);
  }

  template <class Context> void operator()(Context& ctx, score_rows& rows) const {
    expect_floor("adaptive", floor_permille);
    frame scratch(ctx.scratch());
    auto* counts = scratch.template allocate<std::int32_t>(rows.count());                      // (B·H)
    auto* integers = scratch.template allocate<std::int64_t>(rows.count() * listed_parts::integers);  // (B, 3, H)
    kernels::count_pooled(ctx, rows, pooled_best{0, head_weights}, counts);
    kernels::each_sequence(ctx, rows, division{floor_permille, round, counts, integers});
  }

  struct division {
    std::int32_t floor_permille;
    rounding round;
    std::int32_t const* counts;
    std::int64_t* integers;

    constexpr void operator()(slice<row> of, std::int64_t b) const {
      if (of.empty() || !of[0].active) return;
      if (round == rounding::exact)
        exact(of, counts + b * of.size, integers + b * of.size * listed_parts::integers);
      else
        as_authors(of, counts + b * of.size);
    }
    constexpr void exact(slice<row> of, std::int32_t const* count, std::int64_t* of_sequence) const {
      std::int64_t const n = of.size, pooled = pooled_quota(of);
      auto const out = divided(
          pooled, 1000 * n, n, of_sequence,
          [&](std::int64_t h) { return (1000 - floor_permille) * n * count[h] + floor_permille * pooled; },
          [&](std::int64_t h) { return of[h].room(); });
      for (std::int64_t h = 0; h < n; ++h)
        of[h].budget = of[h].protected_tokens() + static_cast<std::int32_t>(out.kept(h));
    }
    constexpr void as_authors(slice<row> of, std::int32_t const* count) const {
      for (std::int64_t h = 0; h < of.size; ++h) {
        std::int64_t const floor = std::int64_t{floor_permille} * of[h].quota() / 1000;
        std::int64_t const x = (1000 - floor_permille) * std::int64_t{count[h]} + 1000 * floor, whole = x / 1000,
                           part = x % 1000;
        std::int64_t const rounded = whole + (part > 500 || (part == 500 && whole % 2 != 0) ? 1 : 0);
        std::int64_t const share = rounded < of[h].room() ? rounded : of[h].room();
        of[h].budget = of[h].protected_tokens() + static_cast<std::int32_t>(share);
      }
    }
  };
};

}  // namespace heads
}  // namespace KVEVICT_ABI
}  // namespace kvevict
