// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <kvevict/heads/adaptive.hpp>
#include <kvevict/layers/entropy.hpp>
#include <kvevict/policy.hpp>
#include <kvevict/score/value_bound.hpp>
#include <kvevict/score/window_attention.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace presets {

/// Window, pool width (odd, 1 for none) and sinks in tokens; the floor of a head in thousandths of its even share, see
/// heads::adaptive.
struct lava_options {
  std::int32_t window = 32;
  std::int32_t pool = 7;
  std::int32_t floor_permille = 200;
  pooling kind = pooling::max;
  std::int32_t sinks = 0;
};

/// SnapKV's tokens, whose heads share their budget by attention times the head's largest value, and whose layers share
/// theirs by the entropy of that: of a stack of layers (page_table::layers); a view of one layer keeps its budget.
/// LAVa, Shen et al., EMNLP 2025, arXiv:2509.09754, second-hand.   Differs: see score::value_bound, layers::entropy.
constexpr auto lava(lava_options o = {}) {
  return policy{score::value_bound{score::window_attention{o.window, {o.pool, o.kind}}}, protect{o.sinks, o.window}}
      .with(heads::adaptive{o.floor_permille})
      .with(layers::entropy{});
}

}  // namespace presets
}  // namespace KVEVICT_ABI
}  // namespace kvevict
