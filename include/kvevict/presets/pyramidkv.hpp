// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <kvevict/layers/pyramid.hpp>
#include <kvevict/policy.hpp>
#include <kvevict/presets/snapkv.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace presets {

/// Window, pool width and sinks in tokens; the top layer gets a β-th of the mean, see layers::pyramid.
struct pyramidkv_options {
  std::int32_t window = 32;
  std::int32_t pool = 7;
  std::int32_t beta = 20;
  pooling kind = pooling::max;
  std::int32_t sinks = 0;
};

/// SnapKV with layer budgets that fall from the bottom layer to the top.
/// PyramidKV, Cai et al. 2024, arXiv:2406.02069.   Differs: exact layer budgets, see layers::pyramid.
constexpr auto pyramidkv(pyramidkv_options o = {}) {
  return snapkv({o.window, o.pool, o.kind, o.sinks}).with(layers::pyramid{o.beta});
}

}  // namespace presets
}  // namespace KVEVICT_ABI
}  // namespace kvevict
