// SPDX-License-Identifier: Apache-2.0
// kvpress' division of a layer's budget, for parity.
#pragma once

#include <kvevict/core/contract.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/heads/heads.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace v0 {
namespace heads {

/// The ⌊α·base⌋ best tokens of every head are forced in; the rest of the budget goes to the best of the whole layer.
///
/// A different function from `adaptive`: the floor is a set of tokens, not a share. Exists for parity with kvpress, whose window lies
/// inside the scores (protect nothing for parity). Errors as `adaptive`.
struct forced_floor {
  using stage = stages::heads;
  static constexpr bool equal_counts = false;
  std::int32_t floor_permille = 200;

  template <class Context> std::int64_t workspace_bytes(Context const& ctx, cache_shape const& s) const {
    return scratch_step(s.kv_heads * 4) + kernels::count_best.bytes(ctx, s);
  }

  template <class Context> void operator()(Context& ctx, score_rows& rows) const {
    KVEVICT_EXPECTS(floor_permille >= 0 && floor_permille <= 1000, "forced_floor: floor_permille is ", floor_permille,
                    "; it is α in thousandths, 0 to 1000");
    frame scratch(ctx.scratch());
    auto* counts = scratch.template take<std::int32_t>(rows.heads);  // (H)
    for (std::int32_t b = 0; b < rows.sequences; ++b) {
      slice<row> const of{rows.rows + std::int64_t{b} * rows.heads, rows.heads};
      if (of.empty() || !of[0].active) continue;
      std::int64_t const pooled = contract::pooled_quota(rows, b), forced = floor_permille * (pooled / of.size) / 1000;
      kernels::count_best(ctx, rows, b, best_of{pooled, static_cast<std::int32_t>(forced), nullptr}, counts);
      for (std::int64_t h = 0; h < of.size; ++h) of[h].budget = of[h].protected_tokens() + counts[h];
    }
  }
};

}  // namespace heads
}  // namespace v0
}  // namespace kvevict
