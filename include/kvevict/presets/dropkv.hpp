// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <kvevict/policy.hpp>
#include <kvevict/score/output_change.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace presets {

/// Window, pool width (odd, 1 for none) and sinks in tokens; which change is measured: score::change::value is
/// OBCache's.
struct dropkv_options {
  std::int32_t window = 32;
  std::int32_t pool = 5;
  pooling kind = pooling::average;
  score::change of = score::change::renormalised;
  std::int32_t sinks = 0;
};

/// Keeps the tokens whose eviction would change the outputs of the last `window` queries most, and the window itself.
/// Scores compare over heads: .with(heads::adaptive{}) moves budget to where changes are large.
/// DropKV, openreview MqfNzH3TVH; OBCache, Gu et al. 2025, arXiv:2510.07651.   Differs: see score::output_change.
constexpr auto dropkv(dropkv_options o = {}) {
  return policy{score::output_change{o.window, {o.pool, o.kind}, o.of}, protect{o.sinks, o.window}};
}

}  // namespace presets
}  // namespace KVEVICT_ABI
}  // namespace kvevict
