// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <kvevict/policy.hpp>
#include <kvevict/score/value_capacity.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace presets {

/// How sharply keys in line with later queries are preferred; later positions; sinks and recent tokens.
struct capkv_options {
  float sharpness = 5;
  std::int32_t positions = 512;
  std::int32_t sinks = 4, recent = 0;
};

/// Keeps the tokens whose values the others cannot make up, and whose keys later queries will look for. Needs
/// prompt(cache, all queries).with_rope(…), or with_query_moments of the model, of which the means are enough.
/// CapKV, 2026, arXiv:2604.25975.   Differs: see score::value_capacity.
constexpr auto capkv(capkv_options o = {}) {
  return policy{score::value_capacity{o.sharpness, o.positions, o.sinks}, protect{o.sinks, o.recent}};
}

}  // namespace presets
}  // namespace KVEVICT_ABI
}  // namespace kvevict
