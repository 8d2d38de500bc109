// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <kvevict/policy.hpp>
#include <kvevict/score/accumulated_attention.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace presets {

/// Recent tokens and sinks in tokens.
struct h2o_options {
  std::int32_t recent = 0;  // 0: half of the budget, rounded up
  std::int32_t sinks = 0;
  score::column_norm norm = score::column_norm::none;
};

/// Keeps heavy hitters, the tokens with the largest accumulated attention, and the newest half of the budget (or
/// `recent` tokens).
/// H2O, Zhang et al., NeurIPS 2023, arXiv:2306.14048.   Differs: the newest half is ⌈budget/2⌉, the authors'
/// ⌊budget/2⌋, so that the newest token stays with a budget of 1; GQA by the group mean; ties go to the more recent
/// token.
constexpr auto h2o(h2o_options o = {}) {
  return policy{score::accumulated_attention{o.norm},
                protect{o.sinks, o.recent == 0 ? 1 : o.recent, o.recent == 0 ? 500 : 0}};
}

}  // namespace presets
}  // namespace KVEVICT_ABI
}  // namespace kvevict
