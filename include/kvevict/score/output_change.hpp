// SPDX-License-Identifier: Apache-2.0
// How much the outputs of the newest queries change when a token is evicted.
#pragma once

#include <algorithm>
#include <cmath>

#include <kvevict/cache/row_reader.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/evidence/evidence.hpp>
#include <kvevict/evidence/tail_window.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/kernels/window_fold.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace score {

/// Which change of the outputs is measured: `renormalised`: what really happens, the others' weights grow; `value`: the
/// token's own term goes and the others stay as they are; `value_and_key`: that and a term for the key, as OBCache.
enum class change : std::uint8_t { renormalised, value, value_and_key };

/// Squared change of the outputs of the last W queries when a token is evicted, summed over them and averaged over the
/// GQA group, then pooled along the tokens.
///
///   renormalised    s(h,j) = 1/G·Σ_{g,w} ( p / (1−p) )²·‖v_j − o‖²,   o = Σ_n p_n·v_n,   1−p not below 10⁻⁶
///   value           s(h,j) = 1/G·Σ_{g,w} p²·‖v_j‖²
///   value_and_key   the same + 1/G·Σ_{g,w} ( p·z )²·‖v_j − o‖²,   z the logit
///
/// The first is exact: without token j the output is o + p/(1−p)·(o − v_j). It compares over heads, so a layer's budget
/// may follow it: heads::adaptive. It is as exact as 1 − p is, whose relative error is 2⁻²⁴/(1−p). Of partial rows o is
/// what the cache holds of the output; a learned sink takes part as a token of value zero, as it does in the model.
/// Paper    DropKV, openreview MqfNzH3TVH.   Differs: width and kind of the pool are not stated in what we could read.
///          OBCache, Gu et al. 2025, arXiv:2510.07651: `value`; `value_and_key` by a digest of others, not the paper.
/// Shapes   queries (T,Hq,D) with T ≥ W rows a sequence or softmax rows, keys and values (H,N,D) → scores (H,N) float.
/// Cost     window_attention's, and 5·Hq·W·N·D flop (Σ p·v, differences and their squares; none of `value`).
///          ‖v − o‖² is not ‖v‖² − 2v·o + ‖o‖², which leaves nothing where v ≈ o. Scratch: N floats a query head.
/// Errors   as window_attention; contract_violation without V, and for value_and_key of softmax rows, which have no
///          logits.
struct output_change {
  std::int32_t window = 32;
  pool_options pool{5, pooling::average};
  change of = change::renormalised;
  group_reduce group = group_reduce::mean;

  template <class Context, class Evidence> void operator()(Context& ctx, Evidence const& e, score_rows& out) const {
    static_assert(has_attention<Evidence>,
                  "output_change: the evidence has no queries and no softmax rows; use prompt(cache, queries)");
    contract::expect_tail_window("output_change", out);
    KVEVICT_EXPECTS((of != change::value_and_key || has<Evidence, facts::queries>),
                    "output_change: change::value_and_key reads logits, and softmax rows have none; provide queries, "
                    "or measure another change");
    component const& v = readable("output_change", e.cache, role::v);
    frame scratch(ctx.scratch());
    if (of == change::renormalised) {
      kernels::fold_window(ctx, e.cache, e.attention, options(), term{term::renormalised}, out);
    } else {
      score_rows more = out;  // the same rows
      more.values = scratch.template allocate<float>(out.total_floats);
      kernels::fold_window(ctx, e.cache, e.attention, options(), term{term::value}, out);
      kernels::squared_norms(ctx, e.cache, v, more);
      kernels::each_token(ctx, out, times{more});
      if (of == change::value_and_key) {
        kernels::fold_window(ctx, e.cache, e.attention, options(), term{term::key}, more);
        kernels::each_token(ctx, out, plus{more});
      }
    }
    kernels::pool(ctx, pool, out);
  }

  template <class Context> std::int64_t workspace_bytes(Context const& ctx, cache_shape const& s) const {
    std::int64_t const more = of == change::renormalised ? 0 : scratch_step(s.rows() * s.tokens * 4);
    term const largest{of == change::value ? term::value : term::key};
    return more + std::max(kernels::fold_window.bytes(ctx, s, options(), largest), kernels::pool.bytes(ctx, s, pool));
  }

  /// What a weight adds to its token's score. One type for all of them: its kernels are compiled once.
  struct term : kernels::fold_by_sums<1> {
    enum kind : std::uint8_t { renormalised, value, key };
    static constexpr float least_rest = 1e-6f;
    kind what;

    constexpr explicit term(kind of) : what(of) {}
    constexpr bool reads_outputs() const { return what != value; }
    KVEVICT_HOST_DEVICE void add(kernels::window_weight const& x, float (&to)[sums]) const {
      float const rest = 1 - x.weight;
      float const factor = what == renormalised ? x.weight / (rest < least_rest ? least_rest : rest)
                           : what == value      ? x.weight
                                                : x.weight * (::logf(x.weight) + x.lse);
      to[0] += factor * factor * (what == value ? 1.0f : x.distance);
    }
    KVEVICT_HOST_DEVICE float finish(float const (&totals)[sums], std::int32_t) const { return totals[0]; }
  };
  struct times {
    score_rows of;
    constexpr void operator()(row const& in, std::int64_t j, float& x) const { x *= of.score(in, j); }
  };
  struct plus {
    score_rows of;
    constexpr void operator()(row const& in, std::int64_t j, float& x) const { x += of.score(in, j); }
  };

 private:
  constexpr window_options options() const { return {.rows = window, .group = group}; }
};

}  // namespace score
}  // namespace KVEVICT_ABI
}  // namespace kvevict
