// SPDX-License-Identifier: Apache-2.0
// Budgets of heads in all layers that follow where the best scores of the whole stack lie.
#pragma once

#include <kvevict/core/apportion.hpp>
#include <kvevict/core/contract.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/heads/heads.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace heads {

/// What a row's share is made of: (1−α) of its count among the best, and α of an even share of all, over 1000·rows.
struct floored_share {
  std::int32_t floor_permille;
  pool_quota all;

  constexpr std::int64_t denominator() const { return 1000 * all.rows; }
  constexpr std::int64_t numerator(std::int64_t count) const {
    return (1000 - floor_permille) * all.rows * count + floor_permille * all.tokens;
  }
};

/// One threshold over layers, heads and tokens: each head of each layer gets as many tokens as it has among the best of
/// all layers of the view, above a floor that every head keeps.
///
///   base = Σ (budget − protected) / (L·H);  f_lh = tokens of head h of layer l among the L·H·base best of the stack;
///   B_lh = (1−α)·f_lh + α·base + protected
///
///   order   score descending (−0 = +0), position descending, layer, head ascending
///
/// The budgets of a sequence's heads in all layers of the view are one: all are kept whole where their tokens fit it,
/// else Σ B_lh = L·H·budget exactly. A view of one layer is divided as by `adaptive`; of a model whose layers come in
/// several views each view is divided by itself. Where layers arrive one by one, see layers/arriving.hpp. Layers kept
/// whole (budget.whole, outcomes) take no part, nor do their budgets.
///
/// Paper    none by itself; LAVa (arXiv:2509.09754), KVzip and KV-Compress rank over layers.   Differs: a share of the
///          even budget as floor; largest remainder in int64 (ties: lower layer, lower head), exact. Scores of layers
///          must be comparable: attention is, a distance of keys need not be.
/// Shapes   scores (L,H,M) of one sequence → budgets (L,H).
/// Cost     `adaptive`'s over the whole view; scratch 12 bytes a token and 32 KiB a row at most on the host.
/// Errors   contract_violation if α ∉ [0, 1000] permille, or a sequence has 2³² tokens in all layers or more.
struct over_layers {
  using stage = stages::heads;
  static constexpr bool equal_counts = false;
  static constexpr bool over_stack = true;
  std::int32_t floor_permille = 200;

  template <class Context> std::int64_t workspace_bytes(Context const& ctx, cache_shape const& s) const {
    return scratch_step(s.rows() * 4) + scratch_step(s.rows() * listed_parts::integers * 8) +
           kernels::count_pooled.bytes(ctx, s, pool_over::layers);
  }

  template <class Context> void operator()(Context& ctx, score_rows& rows) const {
    expect_floor("over_layers", floor_permille);
    row_pools const pools(rows, pool_over::layers);
    KVEVICT_EXPECTS(pools.count == 0 || rows.total_floats / pools.count < std::int64_t{1} << 32,
                    "over_layers: a sequence has 2^32 tokens or more in all layers; plan fewer layers in a view");
    frame scratch(ctx.scratch());
    auto* counts = scratch.template allocate<std::int32_t>(rows.count());                     // (B·H)
    auto* integers = scratch.template allocate<std::int64_t>(rows.count() * listed_parts::integers);  // (S, 3, L·H)
    kernels::count_pooled(ctx, rows, pooled_best{0, nullptr, pool_over::layers}, counts);
    kernels::each_sequence(ctx, rows, division{floor_permille, rows, pools, counts, integers});
  }

  /// Of the first layer's sequences, each with its rows in all layers.
  struct division {
    std::int32_t floor_permille;
    score_rows rows;
    row_pools pools;
    std::int32_t const* counts;
    std::int64_t* integers;

    constexpr void operator()(slice<row>, std::int64_t pool) const {
      if (pool >= pools.count) return;
      pool_quota const quota(rows, pools, pool);
      if (quota.rows == 0) return;
      floored_share const share{floor_permille, quota};
      std::int64_t const n = pools.members;
      auto const at = [&](std::int64_t i) -> row& { return rows.rows[pools.row_of(pool, i)]; };
      auto const out = divided(
          quota.tokens, share.denominator(), n, integers + pool * n * listed_parts::integers,
          [&](std::int64_t i) { return at(i).active ? share.numerator(counts[pools.row_of(pool, i)]) : 0; },
          [&](std::int64_t i) { return at(i).active ? at(i).room() : 0; });
      for (std::int64_t i = 0; i < n; ++i)
        if (row& it = at(i); it.active) it.budget = it.protected_tokens() + static_cast<std::int32_t>(out.kept(i));
    }
  };
};

}  // namespace heads
}  // namespace KVEVICT_ABI
}  // namespace kvevict
