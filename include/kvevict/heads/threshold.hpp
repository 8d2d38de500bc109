// SPDX-License-Identifier: Apache-2.0
// Head budgets that follow from a threshold on the scores.
#pragma once

#include <algorithm>

#include <kvevict/core/contract.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/heads/heads.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace heads {

/// Each head keeps the tokens whose score is above the threshold, at least `floor` of them; a budget is a cap on each
/// head.
///
///   B_h = protected + clamp( #{ j : s(h,j) > τ }, floor, cap − protected ),  τ = 0: all.   The B_h best stay: beyond
///   the cap the lowest go
///
/// Shapes   scores (H,M) → budgets (H), ragged.
/// Cost     one pass over the scores; scratch 4 bytes a row.
/// Errors   contract_violation if τ ∉ [0,1), floor < 0, or a cap is below the protected tokens.
struct threshold {
  using stage = stages::heads;
  static constexpr bool equal_counts = false;
  static constexpr bool capped = true;  // plan(): the budget is a cap, budget::no_cap for none; all rows are scored
  float value = 0.5f;                   // τ
  std::int32_t floor = 0;

  template <class Context> std::int64_t workspace_bytes(Context const&, cache_shape const& s) const {
    return scratch_step(s.rows() * 4);
  }

  template <class Context> void operator()(Context& ctx, score_rows& rows) const {
    KVEVICT_EXPECTS(value >= 0 && value < 1, "threshold: τ is ", value,
                    "; scores are probabilities, give a number in [0,1)");
    KVEVICT_EXPECTS(floor >= 0, "threshold: a floor of ", floor, " tokens; give a count, not a negative number");
    frame scratch(ctx.scratch());
    auto* counts = scratch.template allocate<std::int32_t>(rows.count());  // (B·H)
    kernels::count_above(ctx, rows, value, counts);
    kernels::each_sequence(ctx, rows, division{value == 0, floor, counts});
  }

  struct division {
    bool all;
    std::int32_t floor;
    std::int32_t const* counts;

    constexpr void operator()(slice<row> of, std::int64_t b) const {
      for (std::int64_t h = 0; h < of.size; ++h) {
        row& it = of[h];
        if (!it.active) continue;
        std::int32_t const wanted =
            all ? it.candidates : std::min(std::max(counts[b * of.size + h], floor), it.candidates);
        it.budget = it.protected_tokens() + std::min(wanted, it.quota());
      }
    }
  };
};

}  // namespace heads
}  // namespace KVEVICT_ABI
}  // namespace kvevict
