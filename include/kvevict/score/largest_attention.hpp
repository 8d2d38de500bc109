// SPDX-License-Identifier: Apache-2.0
// The most attention that any of the newest queries pays.
#pragma once

#include <cstdint>

#include <kvevict/core/score_rows.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/core/token_groups.hpp>
#include <kvevict/evidence/evidence.hpp>
#include <kvevict/evidence/tail_window.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/kernels/window_fold.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace score {

/// The most attention that any of the last W queries of any query head of the group pays to each token, no less than
/// what tokens get on average: what no query has asked for yet may still be asked for.
///
///   s(h,j) = max( m_j, 1/(N−R)·Σ_n m_n ),   m_j = max_{g,w} â(g,w,j);   â: a window row's softmax, average-pooled over
///   the N−R tokens before the recent ones, padding left out, and scaled to the sum that it had there
///
/// Paper    DefensiveKV, Feng et al., 2025: what its code does with attention.   Differs: the factor ‖v_j·W_O‖₁ is a
///          score of its own that this one goes into; no tokens are forced in by their share of attention ("smallest
///          set" of the code), whose threshold reads other tokens than it is meant to.
/// Shapes   queries (T,Hq,D) with T ≥ W rows a sequence or softmax rows, keys (H,N,D) → scores (H,N) float, in [0,1].
/// Cost     window_attention's; on a device twice its products, since a row's sum is known before it is scaled.
///          Scratch: N floats a query head on the host, 8·Hq·W bytes and as many for every 2 048 tokens on a device.
/// Errors   as window_attention; contract_violation for a pool that is no average, even, or above 33 wide.
struct largest_attention {
  std::int32_t window = 32;
  std::int32_t pool = 5;

  template <class Context, class Evidence> void operator()(Context& ctx, Evidence const& e, score_rows& out) const {
    static_assert(has_attention<Evidence>,
                  "largest_attention: the evidence has no queries and no softmax rows; use prompt(cache, queries)");
    contract::expect_tail_window("largest_attention", out);
    kernels::fold_window(ctx, e.cache, e.attention, options(), largest{}, out);
    frame scratch(ctx.scratch());
    float* const sums = scratch.template allocate<float>(out.count());
    kernels::row_sums(ctx, out, token_groups{}, 1, before_recent{out}, sums);
    kernels::each_token(ctx, out, no_less_than_mean{out, e.sees, sums});
  }

  template <class Context> std::int64_t workspace_bytes(Context const& ctx, cache_shape const& s) const {
    return kernels::fold_window.bytes(ctx, s, options(), largest{}) + scratch_step(s.rows() * 4);
  }

  struct largest {
    static constexpr std::int32_t sums = 1;

    constexpr bool reads_outputs() const { return false; }
    KVEVICT_HOST_DEVICE void add(kernels::window_weight const& x, float (&to)[sums]) const {
      to[0] = larger_or_nan(x.weight, to[0]);
    }
    KVEVICT_HOST_DEVICE void merge(float const (&other)[sums], float (&to)[sums]) const {
      to[0] = larger_or_nan(other[0], to[0]);
    }
    KVEVICT_HOST_DEVICE float finish(float const (&of)[sums], std::int32_t) const { return of[0]; }
  };
  struct no_less_than_mean {
    score_rows of;
    visibility sees;
    float const* sums;  // (B·H)
    constexpr void operator()(row const& in, std::int64_t, float& x) const {
      std::int32_t const tokens = in.last - sees.padding(in.sequence);
      x = larger_or_nan(x, sums[of.index_of(in)] / static_cast<float>(tokens < 1 ? 1 : tokens));
    }
  };

 private:
  constexpr window_options options() const {
    window_options o{window};
    o.group = group_reduce::max, o.pool_each_row = {pool, pooling::average};
    return o;
  }
};

}  // namespace score
}  // namespace KVEVICT_ABI
}  // namespace kvevict
