// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <kvevict/policy.hpp>
#include <kvevict/score/key_diversity.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace presets {

/// Sinks and recent tokens in tokens; the paper protects none, here the newest token stays. Its keys are rotated.
struct keydiff_options {
  std::int32_t sinks = 0, recent = 1;
  score::keys keys = score::keys::cached;
};

/// Keeps the tokens whose keys point away from the mean direction of the keys. Needs no attention.
/// KeyDiff, Park et al. 2025, arXiv:2504.15364.   Differs: see score::key_diversity.
constexpr auto keydiff(keydiff_options o = {}) {
  return policy{score::key_diversity{o.keys}, protect{o.sinks, o.recent}};
}

}  // namespace presets
}  // namespace KVEVICT_ABI
}  // namespace kvevict
