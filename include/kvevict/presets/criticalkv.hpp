// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <kvevict/policy.hpp>
#include <kvevict/score/output_weighted.hpp>
#include <kvevict/score/shares.hpp>
#include <kvevict/score/window_attention.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace presets {

/// Window, pool width (odd, 1 for none) and sinks in tokens; the part of the evictable budget that goes by attention
/// alone, in thousandths; what is added to attention before it is weighed.
struct criticalkv_options {
  std::int32_t window = 32;
  std::int32_t pool = 7;
  std::int32_t first_permille = 500;
  float epsilon = 1e-4f;
  pooling kind = pooling::max;
  std::int32_t sinks = 0;
};

/// Half of the tokens by what the last `window` queries attend to, the others by that times the size of what a token's
/// value adds to the layer's output; and the window itself. Needs the cache's role::output_norm component, or
/// prompt(…).with_output(W_O). `shares::with_each` puts another score in the place of the window's.
/// CriticalKV, Feng et al. 2025, arXiv:2502.03805.   Differs: second-hand, by kvpress 0.5.5, whose golden it passes;
/// halves of what the window leaves; kvpress gives the first half a token at least, and halves the whole budget.
/// Cost     snapkv's and score::output_weighted's.
constexpr auto criticalkv(criticalkv_options o = {}) {
  return policy{score::shares{score::share{o.first_permille, score::window_attention{o.window, {o.pool, o.kind}}},
                              score::share{score::rest_of_share(o.first_permille),
                                           score::output_weighted{score::of_share_before{}, o.epsilon}}}
                    .with_rest_to_last(),
                protect{o.sinks, o.window}};
}

}  // namespace presets
}  // namespace KVEVICT_ABI
}  // namespace kvevict
