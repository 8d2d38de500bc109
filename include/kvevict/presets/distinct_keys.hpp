// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <kvevict/heads/over_layers.hpp>
#include <kvevict/policy.hpp>
#include <kvevict/score/key_diversity.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace presets {

/// Sinks in tokens; recent tokens and the floor of a head in thousandths, of the budget and of its even share.
struct distinct_keys_options {
  std::int32_t sinks = 4;
  std::int32_t recent_permille = 250;
  std::int32_t floor_permille = 100;
  score::keys keys = score::keys::unrotated;
};

/// The newest quarter of the budget, and of the others those whose keys, before rotation, point away from the rest of
/// their head's; budgets of heads and layers follow the scores. Needs no attention: the cache and its rope alone,
/// contents(cache).with_rope(…). Give a stack of all layers where they are there together; a view of one layer is
/// divided among its heads. Rows differ in length per head; `.with(heads::uniform{})` keeps them equal. While decoding:
/// `.with(score::running_diversity{sums})`, in O(D) a step.
/// Ours: KeyDiff's cosine (arXiv:2504.15364) on unrotated keys, one threshold over a stack, exact.
/// Evidence bench/quality: what was tried on its selection split, and how it does on the other one.
constexpr auto distinct_keys(distinct_keys_options o = {}) {
  return policy{score::key_diversity{o.keys}, protect{o.sinks, 1, o.recent_permille}}.with(
      heads::over_layers{o.floor_permille});
}

}  // namespace presets
}  // namespace KVEVICT_ABI
}  // namespace kvevict
