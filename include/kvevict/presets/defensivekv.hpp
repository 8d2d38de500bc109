// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <kvevict/heads/adaptive.hpp>
#include <kvevict/policy.hpp>
#include <kvevict/score/largest_attention.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace presets {

/// Window, pool width (odd, 1 for none) and sinks in tokens; the floor of a head in thousandths of its even share, see
/// heads::adaptive.
struct defensivekv_options {
  std::int32_t window = 32;
  std::int32_t pool = 5;
  std::int32_t floor_permille = 200;
  std::int32_t sinks = 0;
};

/// Keeps the tokens that any one of the last `window` queries attends to most, and the window itself; heads share their
/// budget by it.
/// DefensiveKV, Feng et al. 2025.   Differs: without value norms through W_O, which ask for more than queries. They are
/// put back by `.with(score::output_weighted{score::largest_attention{}, 0, score::output_norms::share_of_heads})`. No
/// tokens are forced in, see score::largest_attention; exact budgets, see heads::adaptive. Its form for all layers is
/// layer_defensivekv.
constexpr auto defensivekv(defensivekv_options o = {}) {
  return policy{score::largest_attention{o.window, o.pool}, protect{o.sinks, o.window}}.with(
      heads::adaptive{o.floor_permille});
}

}  // namespace presets
}  // namespace KVEVICT_ABI
}  // namespace kvevict
