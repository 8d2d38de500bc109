// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <kvevict/policy.hpp>
#include <kvevict/score/without_attention.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace presets {

/// Sinks and recent tokens in tokens; another seed keeps other tokens.
struct random_options {
  std::uint64_t seed = 0;
  std::int32_t sinks = 0, recent = 1;
};

/// Keeps tokens by a hash of (seed, sequence, layer, head, position), and the protected ones.
/// The bound below, with the structural protection that the other policies have.
constexpr auto random(random_options o = {}) { return policy{score::random{o.seed}, protect{o.sinks, o.recent}}; }

}  // namespace presets
}  // namespace KVEVICT_ABI
}  // namespace kvevict
