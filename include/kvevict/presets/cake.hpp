// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <kvevict/policy.hpp>
#include <kvevict/score/varying_attention.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace presets {

/// Window, pool width (odd, 1 for none) and sinks in tokens; how much the variance counts.
struct cake_options {
  std::int32_t window = 32;
  std::int32_t pool = 5;
  float gamma = 200;
  std::int32_t sinks = 0;
};

/// Keeps the tokens that the last `window` queries attend to, or change their mind about, and the window itself.
/// CAKE's tokens, Qin et al., ICLR 2025, arXiv:2503.12491.   Differs: all layers have the same budget; see
/// score::varying_attention.
constexpr auto cake(cake_options o = {}) {
  return policy{score::varying_attention{o.window, o.gamma, {o.pool, pooling::average}}, protect{o.sinks, o.window}};
}

}  // namespace presets
}  // namespace KVEVICT_ABI
}  // namespace kvevict
