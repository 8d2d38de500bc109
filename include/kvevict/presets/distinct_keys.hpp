// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <kvevict/heads/adaptive.hpp>
#include <kvevict/policy.hpp>
#include <kvevict/score/key_diversity.hpp>
#include <kvevict/score/pooled.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace presets {

/// Sinks in tokens; recent tokens and the floor of a head in thousandths, of the budget and of its even share; the
/// tokens around a distinct key that count as it does, itself among them (odd, 1 for none).
struct distinct_keys_options {
  std::int32_t sinks = 4;
  std::int32_t recent_permille = 250;
  std::int32_t floor_permille = 200;
  score::keys keys = score::keys::unrotated;
  std::int32_t span = 1;
};

/// The newest quarter of the budget, and of the others those whose keys, before rotation, point away from the rest of
/// their head's; the head budgets follow the scores. Needs no attention: the cache and its rope alone, contents(cache)
/// .with_rope(…). Rows differ in length per head; `.with(heads::uniform{})` keeps them equal.
/// Ours: KeyDiff's cosine (arXiv:2504.15364) on unrotated keys, Ada-KV's heads (arXiv:2407.11550), both exact.
/// Evidence one model of 135 M, fixed beforehand: KL over five fresh texts .203 / .117 / .032 at 10 / 20 / 40 % kept
///          (KeyDiff .351 / .197 / .103); 4 and 9 of 16 needles at 10 and 20 %, question unseen (KeyDiff 1 and 2).
constexpr auto distinct_keys(distinct_keys_options o = {}) {
  return policy{score::pooled{score::key_diversity{o.keys}, {o.span, pooling::max}},
                protect{o.sinks, 1, o.recent_permille}}
      .with(heads::adaptive{o.floor_permille});
}

}  // namespace presets
}  // namespace KVEVICT_ABI
}  // namespace kvevict
