// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <kvevict/heads/together.hpp>
#include <kvevict/policy.hpp>
#include <kvevict/score/window_attention.hpp>
#include <kvevict/select/chunks.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace presets {

/// Window, sinks and chunks in tokens. `peak`: see select::chunks; EG-ChunkKV has .chunk = 10, .peak = 4.
struct chunkkv_options {
  std::int32_t window = 32;
  std::int32_t pool = 1;
  std::int32_t chunk = 20;
  std::int32_t peak = 0;
  std::int32_t sinks = 0;
};

/// Keeps chunks of neighbouring tokens, those that the last `window` queries attend to most on average, and the window:
/// one set for the layer's heads.
/// ChunkKV, Liu et al., NeurIPS 2025, arXiv:2502.00299.   Differs: see select::chunks.
constexpr auto chunkkv(chunkkv_options o = {}) {
  return policy{score::window_attention{o.window, {o.pool}}, protect{o.sinks, o.window}}
      .with(heads::together{})
      .with(select::chunks{o.chunk, o.peak});
}

}  // namespace presets
}  // namespace KVEVICT_ABI
}  // namespace kvevict
