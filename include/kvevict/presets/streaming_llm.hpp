// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <kvevict/policy.hpp>
#include <kvevict/score/without_attention.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace presets {

/// Sinks in tokens.
struct streaming_llm_options {
  std::int32_t sinks = 4;
};

/// Keeps the first `sinks` tokens and fills the rest of the budget, one token at least, with the newest. Needs no
/// attention. StreamingLLM, Xiao et al., ICLR 2024, arXiv:2309.17453.   Differs: keys stay rotated by their own
/// positions.
constexpr auto streaming_llm(streaming_llm_options o = {}) { return policy{score::none{}, protect{o.sinks, 1, 1000}}; }

}  // namespace presets
}  // namespace KVEVICT_ABI
}  // namespace kvevict
