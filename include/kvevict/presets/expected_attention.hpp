// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <kvevict/policy.hpp>
#include <kvevict/score/expected_attention.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace presets {

/// Later positions; which moments of queries count; sinks and recent tokens; what is added to attention before the
/// value's length multiplies it.
struct expected_attention_options {
  std::int32_t positions = 512;
  score::query_spread of = score::query_spread::mean_and_covariance;
  std::int32_t sinks = 4, recent = 0;
  float epsilon = 0;
  score::value_factor values = score::value_factor::norm;
};

/// Keeps what queries like the prompt's would attend to from the next `positions` positions. Needs prompt(cache, all
/// queries).with_rope(…), or with_query_moments of the model, which contents(cache) will do for. Queries of the first
/// `sinks` positions do not count. Good in company with heads::adaptive.
/// Expected Attention, Devoto et al. 2025, arXiv:2510.00636.   Differs: see score::expected_attention.
constexpr auto expected_attention(expected_attention_options o = {}) {
  return policy{score::expected_attention{{o.positions, o.of, o.sinks}, o.epsilon, o.values},
                protect{o.sinks, o.recent}};
}

}  // namespace presets
}  // namespace KVEVICT_ABI
}  // namespace kvevict
