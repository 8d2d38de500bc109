// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <kvevict/policy.hpp>
#include <kvevict/score/key_norm.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace presets {

/// Sinks and recent tokens in tokens; the paper protects none, here the newest token stays.
struct knorm_options {
  std::int32_t sinks = 0, recent = 1;
};

/// Keeps the tokens whose keys are smallest. Needs no attention.
/// Knorm, Devoto et al., EMNLP 2024, arXiv:2406.11430.   Differs: see score::key_norm.
/// Evidence RULER-4096 of Qwen3-8B at 25, 50 and 75 % removed 87, 68 and 33 (kvpress #219); none of our needles.
constexpr auto knorm(knorm_options o = {}) { return policy{score::key_norm{}, protect{o.sinks, o.recent}}; }

}  // namespace presets
}  // namespace KVEVICT_ABI
}  // namespace kvevict
