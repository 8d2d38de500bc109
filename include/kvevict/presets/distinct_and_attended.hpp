// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <kvevict/presets/distinct_keys.hpp>
#include <kvevict/score/largest_attention.hpp>
#include <kvevict/score/shares.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace presets {

/// Window, pool width and sinks in tokens; recent tokens, the share of distinct keys and the floor of a head in
/// thousandths: of the budget, of what sinks and recent tokens leave, of a head's even share.
struct distinct_and_attended_options {
  std::int32_t window = 32;
  std::int32_t pool = 1;
  std::int32_t distinct_permille = 600;
  std::int32_t sinks = 4;
  std::int32_t recent_permille = 150;
  std::int32_t floor_permille = 100;
  score::keys keys = score::keys::unrotated;
};

/// distinct_keys for 60 % of what sinks and the newest tokens leave, then, of the tokens that are left, those that any
/// of the last queries attends to most; within each share budgets of heads and layers follow the scores. Keys find what
/// nobody has asked for yet, attention keeps the text going. Needs prompt(cache, queries).with_rope(…), of a stack of
/// all layers where they are there together; a view of one layer is divided among its heads. Rows differ in length per
/// head.
/// Ours: shares of one budget in place of a sum of scores; see distinct_keys and defensivekv for what they are made of.
/// Evidence bench/quality: what was tried on its selection split, and how it does on the other one.
constexpr auto distinct_and_attended(distinct_and_attended_options o = {}) {
  return distinct_keys({o.sinks, o.recent_permille, o.floor_permille, o.keys})
      .with(score::shares{
          score::share{o.distinct_permille, score::key_diversity{o.keys}},
          score::share{score::rest_of_share(o.distinct_permille), score::largest_attention{o.window, o.pool}}});
}

}  // namespace presets
}  // namespace KVEVICT_ABI
}  // namespace kvevict
