// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <kvevict/policy.hpp>
#include <kvevict/score/relative_spread.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace presets {

/// Tokens of a partition and sinks in tokens.
struct lagkv_options {
  std::int32_t lag = 128;
  std::int32_t sinks = 4;
  score::partition_score scores = score::partition_score::rank;
};

/// Keeps the tokens whose channels spread most in the range of the `lag` tokens that follow, the sinks and the last
/// `lag` tokens. Needs no attention.
/// LagKV, Liang et al. 2025, arXiv:2504.04704.   Differs: see score::relative_spread; the last `lag` tokens are
/// protected, and those between them and the last whole partition come first of all others.
constexpr auto lagkv(lagkv_options o = {}) {
  return policy{score::relative_spread{o.sinks, o.lag, o.scores}, protect{o.sinks, o.lag}};
}

}  // namespace presets
}  // namespace KVEVICT_ABI
}  // namespace kvevict
