// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <kvevict/layers/dispersion.hpp>
#include <kvevict/policy.hpp>
#include <kvevict/score/varying_attention.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace presets {

/// Window, pool width (odd, 1 for none) and sinks in tokens; how much the variance counts; τ₁ and τ₂ of the layers.
struct cake_options {
  std::int32_t window = 32;
  std::int32_t pool = 5;
  float gamma = 200;
  std::int32_t sinks = 0;
  float spread_root = 1;
  float change_root = 1;
};

/// Keeps the tokens that the last `window` queries attend to, or change their mind about, and the window itself; layers
/// of a stack (page_table::layers) share their budget by how widely that attention spreads and how much it changes, a
/// view of one layer keeps its own.
/// CAKE, Qin et al., ICLR 2025, arXiv:2503.12491.   Differs: see score::varying_attention, layers::dispersion.
constexpr auto cake(cake_options o = {}) {
  return policy{score::varying_attention{o.window, o.gamma, {o.pool, pooling::average}}, protect{o.sinks, o.window}}
      .with(layers::dispersion{o.window, o.spread_root, o.change_root});
}

}  // namespace presets
}  // namespace KVEVICT_ABI
}  // namespace kvevict
