// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <kvevict/policy.hpp>
#include <kvevict/score/recent_attention.hpp>
#include <kvevict/score/value_prior.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace presets {

/// Recent rows, pool width of the value norms and sinks in tokens; the least gain of the step-gain softmax, a factor on
/// logits.
struct ahakv_options {
  std::int32_t recent = 32;
  weighting weights = weighting::step_gain;
  float min_gain = 0;
  std::int32_t value_pool = 5;
  std::int32_t sinks = 0;
};

/// Keeps the tokens that the last `recent` rows attend to under the step-gain softmax, weighted by their values, and
/// those rows' own tokens.
/// AhaKV, Gu et al. 2025, arXiv:2506.03762.   Differs: see score::recent_attention and score::value_prior.
constexpr auto ahakv(ahakv_options o = {}) {
  return policy{score::value_prior{score::recent_attention{o.recent, o.weights, o.min_gain},
                                   pool_options{o.value_pool, pooling::average}},
                protect{o.sinks, o.recent}};
}

}  // namespace presets
}  // namespace KVEVICT_ABI
}  // namespace kvevict
