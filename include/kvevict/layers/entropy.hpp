// SPDX-License-Identifier: Apache-2.0
// Layer budgets that follow how widely the scores of each layer spread.
#pragma once

#include <kvevict/core/apportion.hpp>
#include <kvevict/core/score_histogram.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/evidence/planning.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/layers/layers.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace layers {

/// Each layer's share of the evictable budget is the entropy of its scores, all heads together: where attention is
/// spread widely more must stay.
///
///   e_l = −Σ_{h,j} p·log2 p,  p = s(l,h,j) / Σ_{h,j} s(l,h,j);   B_l = e_l / Σ e · Σ (budget − protected) + protected
///
/// Budget moves within a unit: a head's layers, under a heads stage all heads' layers. A unit that fits its budget is
/// kept whole; else every layer gets its B_l (times H), cut to what it holds, and what was cut goes to layers with room
/// by largest remainder (ties: lower layer): Σ = L·budget exactly. Heads that are kept whole have no scores. A view of
/// fewer layers than the model's is divided by itself, one of a single layer keeps the budget; where layers arrive one
/// by one, see layers/arriving.hpp.
///
/// Paper    LAVa, arXiv:2509.09754 (second-hand), and the entropy of CAKE, arXiv:2503.12491, without its variance over
///          rows.   Differs: e_l is a whole number of 2⁻¹⁰ bits, from scores that are rounded once to two bits of their
///          fraction (core/score_histogram.hpp): integers from there on, the same in every context and order.
/// Shapes   scores (L,H,M) → budgets (L), or (L,H).
/// Cost     one read of the scores; scratch 8 KiB a row.
struct entropy {
  using stage = stages::layers;
  static constexpr bool after_scores = true;  // planning scores all rows of a unit that is cut, and then calls divide()

  constexpr std::int32_t operator()(layer_query const& q) const { return q.tokens_per_head; }

  template <class Context> std::int64_t workspace_bytes(Context const&, cache_shape const& s) const {
    return scratch_step(s.rows() * score_histogram::buckets * 4) + scratch_step(s.sequences * 8) +
           scratch_step(s.rows() * listed_parts::integers * 8);
  }

  template <class Context, class Evidence>
  void divide(Context& ctx, Evidence const&, score_rows const&, score_rows& rows, sharing share) const {
    if (rows.layers == 1) return;
    frame scratch(ctx.scratch());
    auto* histograms = scratch.template allocate<std::uint32_t>(rows.count() * score_histogram::buckets);
    auto* weights = scratch.template allocate<std::int64_t>(rows.sequences);                  // (L·S)
    auto* integers = scratch.template allocate<std::int64_t>(rows.count() * listed_parts::integers);  // (S, H, 3, L)
    kernels::score_histograms(ctx, rows, histograms);
    kernels::each_sequence(ctx, rows, weigh{histograms, weights});
    kernels::each_sequence(ctx, rows, division{rows, row_pools(rows, pool_over::layers), share, weights, integers});
  }

  struct weigh {
    std::uint32_t const* histograms;
    std::int64_t* weights;

    constexpr void operator()(slice<row> of, std::int64_t b) const {
      std::uint32_t const* const first = histograms + b * of.size * score_histogram::buckets;
      weights[b] = score_histogram::entropy_of([&](std::int32_t bucket) {
        std::int64_t sum = 0;
        for (std::int64_t h = 0; h < of.size; ++h) sum += first[h * score_histogram::buckets + bucket];
        return sum;
      });
    }
  };

  /// Of the first layer's sequences, each with its rows in all layers.
  struct division {
    score_rows rows;
    row_pools pools;
    sharing share;
    std::int64_t const* weights;
    std::int64_t* integers;

    constexpr void operator()(slice<row> of, std::int64_t pool) const {
      if (pool >= pools.count) return;
      bool const alone = share == sharing::none;
      for (std::int64_t h = 0; h < of.size; h += alone ? 1 : of.size)
        divide(pool, h, alone ? 1 : of.size, integers + (pool * of.size + h) * rows.layers * listed_parts::integers);
    }

   private:
    constexpr row& at(std::int64_t pool, std::int64_t l, std::int64_t h) const {
      return rows.rows[pools.row_of(pool, l * rows.heads + h)];
    }
    constexpr void divide(std::int64_t pool, std::int64_t first, std::int64_t heads, std::int64_t* of_unit) const {
      std::int64_t const n = rows.layers;
      std::int64_t *const weight = of_unit, *const room = of_unit + 2 * n;  // where divided() puts floors and caps
      std::int64_t all = 0, quota = 0, held = 0, cut = 0;
      for (std::int64_t l = 0; l < n; ++l) {
        weight[l] = room[l] = 0;
        for (std::int64_t h = first; h < first + heads; ++h)
          if (row const& it = at(pool, l, h); it.active)
            weight[l] = weights[l * pools.count + pool], room[l] += it.room(), quota += it.quota(), ++cut;
        held += room[l], all += weight[l];
      }
      if (cut == 0) return;
      if (quota > held) quota = held;
      auto const out = divided(
          quota, all == 0 ? cut / heads : all, n, of_unit,
          [&](std::int64_t l) {  // without any entropy: evenly
            return (all == 0 ? (at(pool, l, first).active ? 1 : 0) : weight[l]) * quota;
          },
          [&](std::int64_t l) { return room[l]; });
      for (std::int64_t l = 0; l < n; ++l)
        for (std::int64_t h = 0; h < heads; ++h)
          if (row& it = at(pool, l, first + h); it.active)
            it.budget = it.protected_tokens() +
                        static_cast<std::int32_t>(out.kept(l) / heads + (h < out.kept(l) % heads ? 1 : 0));
    }
  };
};

}  // namespace layers
}  // namespace KVEVICT_ABI
}  // namespace kvevict
