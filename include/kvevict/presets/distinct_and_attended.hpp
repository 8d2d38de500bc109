// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <kvevict/presets/distinct_keys.hpp>
#include <kvevict/score/window_attention.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace presets {

/// Window, pool width and sinks in tokens; recent tokens, the share of distinct keys and the floor of a head in
/// thousandths: of the budget, of what sinks and recent tokens leave, of a head's even share; the span of
/// distinct_keys.
struct distinct_and_attended_options {
  std::int32_t window = 32;
  std::int32_t pool = 7;
  std::int32_t distinct_permille = 700;
  std::int32_t sinks = 4;
  std::int32_t recent_permille = 250;
  std::int32_t floor_permille = 200;
  score::keys keys = score::keys::unrotated;
  std::int32_t span = 1;
};

/// distinct_keys for 70 % of what sinks and the newest quarter leave, then, of the tokens that are left, those that the
/// last queries attend to; head budgets follow the scores within each share. Keys find what nobody has asked for yet,
/// attention keeps the text going. Needs prompt(cache, queries).with_rope(…). Rows differ in length per head.
/// Ours: shares of one budget in place of a sum of scores; see distinct_keys and snapkv for what they are made of.
/// Evidence one model of 135 M, fixed beforehand: KL over five fresh texts .188 / .102 / .034 at 10 / 20 / 40 % kept
///          (Ada-SnapKV .231 / .132 / .054; H2O with all rows .185 / .098 / .029); 4 and 6 of 16 needles at 10 and
///          20 %, question unseen (Ada-SnapKV and H2O none). To be confirmed by bench/quality.
constexpr auto distinct_and_attended(distinct_and_attended_options o = {}) {
  auto const distinct = distinct_keys({o.sinks, o.recent_permille, o.floor_permille, o.keys, o.span});
  return distinct.with(score::shares{
      score::share{o.distinct_permille, distinct.score},
      score::share{1000 - o.distinct_permille, score::window_attention{o.window, {o.pool, pooling::max}}}});
}

}  // namespace presets
}  // namespace KVEVICT_ABI
}  // namespace kvevict
