// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <kvevict/policy.hpp>
#include <kvevict/score/window_attention.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace presets {

/// Rows of the future, sinks and recent tokens, all in tokens.
struct oracle_options {
  std::int32_t rows = 32;
  std::int32_t sinks = 0, recent = 1;
};

/// Keeps the tokens that the next `rows` tokens will really attend to. Needs future(cache, queries).with_lse(…).
/// The bound above every policy of the same budget and protection.
constexpr auto oracle(oracle_options o = {}) {
  return policy{score::future_attention{o.rows}, protect{o.sinks, o.recent}};
}

}  // namespace presets
}  // namespace KVEVICT_ABI
}  // namespace kvevict
