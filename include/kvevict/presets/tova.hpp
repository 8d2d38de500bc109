// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <kvevict/heads/together.hpp>
#include <kvevict/policy.hpp>
#include <kvevict/score/window_attention.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace presets {

/// Sinks and recent tokens in tokens.
struct tova_options {
  std::int32_t sinks = 0, recent = 1;
};

/// Keeps the tokens that the last query attends to, averaged over all heads: one set for the layer's heads.
/// TOVA, Oren et al., EMNLP 2024, arXiv:2401.06104.   Differs: the newest token, which the authors let compete, stays.
constexpr auto tova(tova_options o = {}) {
  return policy{score::window_attention{1, {1}}, protect{o.sinks, o.recent}}.with(heads::together{});
}

}  // namespace presets
}  // namespace KVEVICT_ABI
}  // namespace kvevict
