// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <kvevict/heads/adaptive.hpp>
#include <kvevict/presets/criticalkv.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace presets {

/// criticalkv's, and the floor of a head in thousandths of its even share, see heads::adaptive.
struct ada_criticalkv_options {
  std::int32_t window = 32;
  std::int32_t pool = 7;
  std::int32_t floor_permille = 200;
  std::int32_t first_permille = 500;
  float epsilon = 1e-4f;
  pooling kind = pooling::max;
  std::int32_t sinks = 0;
};

/// CriticalKV with head budgets that follow attention, then halves within each head. Rows differ in length per head.
/// Critical-Ada, Feng et al. 2025, arXiv:2502.03805.   Differs: second-hand, by kvpress 0.5.5; exact budgets, see
/// heads::adaptive. kvpress forces a floor of tokens into each head (heads::forced_floor) and keeps it in the second
/// half, too, where their scores, the largest float times a norm, can become infinite; here no score stands for a token
/// that is kept.
constexpr auto ada_criticalkv(ada_criticalkv_options o = {}) {
  auto const even = criticalkv({o.window, o.pool, o.first_permille, o.epsilon, o.kind, o.sinks});
  return even.with(even.score.dividing(score::heads_divide::whole_budget)).with(heads::adaptive{o.floor_permille});
}

}  // namespace presets
}  // namespace KVEVICT_ABI
}  // namespace kvevict
