// SPDX-License-Identifier: Apache-2.0
// How much a row's logits are scaled, so that its expected entropy is that of the budget.
#pragma once

#include <cmath>
#include <cstdint>

#include <kvevict/core/abi.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {
/// √(2 ln(i/k)), at least `least`: the gain of AhaKV's step-gain softmax for a row that sees i tokens under a budget of
/// k.
inline float step_gain(std::int64_t i, std::int64_t k, float least) {
  if (i <= k || k <= 0) return least;
  auto const gain = static_cast<float>(std::sqrt(2.0 * std::log(static_cast<double>(i) / static_cast<double>(k))));
  return gain > least ? gain : least;
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
