// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <kvevict/layers/pyramid.hpp>
#include <kvevict/policy.hpp>
#include <kvevict/presets/ada_snapkv.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace presets {

/// Window, pool width and sinks in tokens; the floor of a head in thousandths of its even share; the top layer gets a
/// β-th of the mean, see layers::pyramid.
struct ada_pyramidkv_options {
  std::int32_t window = 32;
  std::int32_t pool = 7;
  std::int32_t floor_permille = 200;
  std::int32_t beta = 20;
  pooling kind = pooling::max;
  std::int32_t sinks = 0;
};

/// SnapKV with layer budgets that fall and head budgets that follow the scores.
/// Ada-KV on PyramidKV: arXiv:2407.11550 and arXiv:2406.02069.   Differs: exact budgets over heads and layers.
constexpr auto ada_pyramidkv(ada_pyramidkv_options o = {}) {
  return ada_snapkv({o.window, o.pool, o.floor_permille, o.kind, o.sinks}).with(layers::pyramid{o.beta});
}

}  // namespace presets
}  // namespace KVEVICT_ABI
}  // namespace kvevict
