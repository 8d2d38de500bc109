// SPDX-License-Identifier: Apache-2.0
// kvpress' division of a layer's budget, for parity.
#pragma once

#include <kvevict/core/shape.hpp>
#include <kvevict/heads/heads.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace heads {

/// The ⌊α·base⌋ best tokens of every head are forced in; the rest of the budget goes to the best of the whole layer.
///
/// A different function from `adaptive`: the floor is a set of tokens, not a share. Exists for parity with kvpress,
/// whose window lies inside the scores (protect nothing for parity). Errors as `adaptive`.
struct forced_floor {
  using stage = stages::heads;
  static constexpr bool equal_counts = false;
  std::int32_t floor_permille = 200;

  template <class Context> std::int64_t workspace_bytes(Context const& ctx, cache_shape const& s) const {
    return scratch_step(s.rows() * 4) + kernels::count_pooled.bytes(ctx, s);
  }

  template <class Context> void operator()(Context& ctx, score_rows& rows) const {
    expect_floor("forced_floor", floor_permille);
    frame scratch(ctx.scratch());
    auto* counts = scratch.template allocate<std::int32_t>(rows.count());  // (B·H)
    kernels::count_pooled(ctx, rows, pooled_best{floor_permille, nullptr}, counts);
    kernels::each_sequence(ctx, rows, division{counts});
  }

  struct division {
    std::int32_t const* counts;
    constexpr void operator()(slice<row> of, std::int64_t b) const {
      for (std::int64_t h = 0; h < of.size && of[0].active; ++h)
        of[h].budget = of[h].protected_tokens() + counts[b * of.size + h];
    }
  };
};

}  // namespace heads
}  // namespace KVEVICT_ABI
}  // namespace kvevict
