// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <kvevict/policy.hpp>
#include <kvevict/score/less_redundant.hpp>
#include <kvevict/score/window_attention.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace presets {

/// Window, pool width (odd, 1 for none) and sinks in tokens; the share of attention in the score.
struct rkv_options {
  std::int32_t window = 8;
  std::int32_t pool = 7;
  float lambda = 0.07f;
  std::int32_t sinks = 0;
};

/// Keeps the tokens that the last `window` queries attend to and that resemble the others least, and the window itself.
/// While decoding, plan every so many tokens (128 in the paper) with the queries of a query_ring.
/// R-KV, Cai et al. 2025, arXiv:2505.24133.   Differs: see score::less_redundant.
constexpr auto rkv(rkv_options o = {}) {
  return policy{score::less_redundant{score::window_attention{o.window, {o.pool, pooling::max}}, o.lambda},
                protect{o.sinks, o.window}};
}

}  // namespace presets
}  // namespace KVEVICT_ABI
}  // namespace kvevict
