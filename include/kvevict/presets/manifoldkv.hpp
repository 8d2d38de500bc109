// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <kvevict/policy.hpp>
#include <kvevict/score/key_distance.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace presets {

/// Sinks, recent tokens and the window of a mean in tokens; window 0: one mean of all, 4 096: the paper's beyond 32 k.
struct manifoldkv_options {
  std::int32_t sinks = 0, recent = 1;
  std::int32_t window = 0;
  score::keys keys = score::keys::cached;
};

/// Keeps the tokens whose keys lie farthest from the mean of the keys. Needs no attention.
/// ManifoldKV, ICML 2026, arXiv:2602.08343.   Differs: see score::key_distance; the newest token stays.
/// Evidence three-key needles at 50 % kept 92.4 where KeyDiff finds 77.0 (the paper's figures).
constexpr auto manifoldkv(manifoldkv_options o = {}) {
  return policy{score::key_distance{o.window, o.keys}, protect{o.sinks, o.recent}};
}

}  // namespace presets
}  // namespace KVEVICT_ABI
}  // namespace kvevict
