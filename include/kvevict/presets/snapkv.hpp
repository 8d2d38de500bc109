// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <kvevict/policy.hpp>
#include <kvevict/score/window_attention.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace presets {

/// Window, pool width (odd, 1 for none) and sinks in tokens.
struct snapkv_options {
  std::int32_t window = 32;
  std::int32_t pool = 7;
  pooling kind = pooling::max;
  std::int32_t sinks = 0;
};

/// Keeps the tokens that the last `window` queries attend to, max-pooled, and the window itself.
/// SnapKV, Li et al., NeurIPS 2024, arXiv:2404.14469.   Differs: see score::window_attention.
constexpr auto snapkv(snapkv_options o = {}) {
  return policy{score::window_attention{o.window, {o.pool, o.kind}}, protect{o.sinks, o.window}};
}

}  // namespace presets
}  // namespace KVEVICT_ABI
}  // namespace kvevict
