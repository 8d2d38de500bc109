// SPDX-License-Identifier: Apache-2.0
// The probability of being kept that a trained gate gives each token.
#pragma once

#include <algorithm>

#include <kvevict/core/contract.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/evidence/evidence.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace score {

/// Keep probability of each token from the layer's input, by a gate of this layer: see kernels::gate for the formula.
///
/// Paper    Attention-Gate, Zeng et al. 2024, arXiv:2410.12876.   Differs: our reference design; the paper publishes
///          neither code nor sizes.
/// Shapes   features (T,E), weights of a gate → (H,N) float in [0,1]. From a whole prompt, or with `observe` chunk by
///          chunk and, if new tokens are to be gated, step by step: the cache's role::state component then holds p, one
///          float a slot.
/// Cost     6·T·E·A + 4·T·N·A flop, A = Hg·dg; scratch O(T·A).
/// Errors   contract_violation: see kernels::gate; a prompt that is not the whole cache; a prompt of scattered rows.
struct gate {
  gate_weights weights;
  gate_mask sees = gate_mask::causal;

  constexpr std::int32_t state_floats() const { return 1; }

  template <class Context, class Evidence> void operator()(Context& ctx, Evidence const& e, score_rows& out) const {
    static_assert(has<Evidence, facts::features> || has<Evidence, facts::state>,
                  "gate: the evidence has no hidden states and no state; use "
                  "prompt(cache, features), or observe(...) and remembered(cache)");
    if constexpr (has<Evidence, facts::state>) {
      kernels::sum_state(ctx, e.cache, *e.cache.find(role::state), out);
    } else {
      kernels::expect_prompt(ctx, e.input, out);
      if (out.count() != 0) expect_gate(weights, e.input, out.sequences, out.heads);
      auto input = e.input;
      input.memory = {};  // plan() writes nothing that is the engine's
      probabilities(ctx, e, input, out);
    }
  }

  template <class Context> std::int64_t workspace_bytes(Context const& ctx, cache_shape const& s) const {
    return scratch_step(s.sequences * s.tokens * s.kv_heads * 4) + kernels::gate.bytes(ctx, s, weights);
  }

  /// Writes p of the newest tokens into the state.
  template <class Context, class Evidence>
  void observe(Context& ctx, Evidence const& e, component const& state, std::int32_t, score_rows& work) const {
    static_assert(has<Evidence, facts::features>, "observe: a gate reads hidden states; use prompt(cache, features)");
    kernels::sum_state(ctx, e.cache, state, work);
    if (e.older == older_tokens::zero || e.older_each != nullptr || e.sees.first_token != nullptr)
      kernels::each_token(ctx, work, start{});
    probabilities(ctx, e, e.input, work);  // raises here, before anything is written
    kernels::update_state(ctx, e.cache, state, update_options{state_update::assign, new_token_state::kept}, work);
  }

  /// Tokens that nobody has observed have no score yet, padding none at all.
  struct start {
    constexpr void operator()(row const& in, std::int64_t, float& x) const {
      if (in.starts_at_zero()) x = 0;
    }
  };

 private:
  template <class Context, class Evidence>
  void probabilities(Context& ctx, Evidence const& e, feature_rows const& input, score_rows& out) const {
    KVEVICT_EXPECTS(e.cache.pages.layers == 1, "gate: a view of ", e.cache.pages.layers,
                    " layers; every layer has a gate of its own, provide them one by one");
    KVEVICT_EXPECTS(sees <= gate_mask::bidirectional,
                    "gate: a mask that there is not; give gate_mask::causal or gate_mask::bidirectional");
    if (out.count() == 0) return;
    frame scratch(ctx.scratch());
    auto* p = scratch.template allocate<float>(kernels::most_rows(ctx, input, out.sequences) * out.heads);  // (T,H)
    kernels::gate(ctx, weights, input, sees, out.sequences, out.heads, p);
    kernels::put_rows(ctx, input, p, out);
  }
};

}  // namespace score
}  // namespace KVEVICT_ABI
}  // namespace kvevict
