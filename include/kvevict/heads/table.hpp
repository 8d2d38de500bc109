// SPDX-License-Identifier: Apache-2.0
// Head budgets from a fixed table.
#pragma once

#include <cstdint>

#include <kvevict/core/apportion.hpp>
#include <kvevict/core/contract.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/heads/heads.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace heads {

/// Each head gets its share of the layer's evictable budget, as a table says that somebody has measured once.
///
///   B_h = share(l,h) / Σ_h share(l,h) · Σ_h (budget − protected) + protected       all shares of a layer 0: evenly
///
/// Rounded by largest remainder (ties: lower head) and cut to what a head holds; what was cut goes to the others: Σ is
/// the layer's budget exactly. The layer's own share is a layer stage's, of the same table: layers::table.
///
/// Paper    DuoAttention (arXiv:2410.10819): 1 for its retrieval heads, 0 for its streaming heads, which then keep what
///          is protected; HeadKV (arXiv:2410.19258), LU-KV (arXiv:2602.08585): tokens that they give each head.
/// Shapes   shares (L,H), each 0 to 1 000 000, of all layers of the model, in the context's memory.
/// Cost     O(H log) integer operations a layer; scratch 24 bytes a row.
/// Errors   contract_violation if there are no shares, for other layers or heads, or a share of the view's layers that
///          is out of range (counted from their first).
struct table {
  using stage = stages::heads;
  static constexpr bool equal_counts = false, differs_by_layer = true;
  std::int32_t const* shares = nullptr;  // (L,H)
  std::int32_t layers = 0, heads = 0;

  template <class Context> std::int64_t workspace_bytes(Context const&, cache_shape const& s) const {
    return scratch_step(s.rows() * listed_parts::integers * 8);
  }

  template <class Context> void operator()(Context& ctx, score_rows& rows) const {
    std::int32_t const first = rows.first_head;
    KVEVICT_EXPECTS(shares != nullptr && layers >= rows.layer + rows.layers &&
                        heads == (rows.model_heads == 0 ? rows.heads : rows.model_heads),
                    "heads::table: shares of ", layers, " layers of ", heads,
                    " heads, but the view holds layers up to ", rows.layer + rows.layers - 1, " with heads up to ",
                    first + rows.heads - 1, "; give shares of all layers and heads of the model");
    std::int64_t const before = std::int64_t{rows.layer} * heads;
    kernels::expect_shares(ctx, "heads::table", shares + before, std::int64_t{rows.layers} * heads);
    frame scratch(ctx.scratch());
    auto* integers = scratch.template allocate<std::int64_t>(rows.count() * listed_parts::integers);  // (B, 3, H)
    kernels::each_sequence(ctx, rows, division{shares, heads, rows, integers});
  }

  struct division {
    std::int32_t const* shares;
    std::int32_t heads;
    score_rows rows;
    std::int64_t* integers;

    constexpr void operator()(slice<row> of, std::int64_t b) const {
      if (of.empty() || !of[0].active) return;
      std::int64_t const n = of.size, quota = pooled_quota(of);
      std::int32_t const* const mine =
          shares + std::int64_t{rows.layer_of(static_cast<std::int32_t>(b))} * heads + rows.first_head;
      std::int64_t sum = 0;
      for (std::int64_t h = 0; h < n; ++h) sum += mine[h];
      auto const out = divided(
          quota, sum == 0 ? n : sum, n, integers + b * n * listed_parts::integers,
          [&](std::int64_t h) { return quota * (sum == 0 ? 1 : mine[h]); },
          [&](std::int64_t h) { return of[h].room(); });
      for (std::int64_t h = 0; h < n; ++h)
        of[h].budget = of[h].protected_tokens() + static_cast<std::int32_t>(out.kept(h));
    }
  };
};

}  // namespace heads
}  // namespace KVEVICT_ABI
}  // namespace kvevict
