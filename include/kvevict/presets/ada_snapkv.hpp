// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <kvevict/heads/adaptive.hpp>
#include <kvevict/policy.hpp>
#include <kvevict/presets/snapkv.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace presets {

/// Window, pool width and sinks in tokens; the floor of a head in thousandths of its even share, see heads::adaptive.
struct ada_snapkv_options {
  std::int32_t window = 32;
  std::int32_t pool = 7;
  std::int32_t floor_permille = 200;
  pooling kind = pooling::max;
  std::int32_t sinks = 0;
};

/// SnapKV with head budgets that follow the scores. Rows differ in length per head: per-head page tables.
/// Ada-KV, Feng et al., NeurIPS 2025, arXiv:2407.11550.   Differs: exact budgets, see heads::adaptive.
constexpr auto ada_snapkv(ada_snapkv_options o = {}) {
  return snapkv({o.window, o.pool, o.kind, o.sinks}).with(heads::adaptive{o.floor_permille});
}

}  // namespace presets
}  // namespace KVEVICT_ABI
}  // namespace kvevict
