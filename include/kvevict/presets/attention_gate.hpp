// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <kvevict/heads/threshold.hpp>
#include <kvevict/policy.hpp>
#include <kvevict/score/gate.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace presets {

/// Threshold a probability in [0, 1); sinks, recent tokens and floor in tokens.
struct attention_gate_options {
  float threshold = 0.5f;
  std::int32_t sinks = 4;
  std::int32_t recent = 32;
  std::int32_t floor = 0;  // tokens that a head keeps besides the protected ones, whatever its probabilities
  gate_mask sees = gate_mask::causal;
};

/// Keeps the tokens whose keep probability, by the trained gate of this layer, is above the threshold. How many is the
/// gate's decision: budget.tokens_per_head is a cap, budget::no_cap for none. Rows differ in length per head: per-head
/// page tables. Attention-Gate, Zeng et al. 2024, arXiv:2410.12876.   Differs: our reference design of the gate, see
/// score::gate and heads::threshold.
constexpr auto attention_gate(gate_weights const& weights, attention_gate_options o = {}) {
  return policy{score::gate{weights, o.sees}, protect{o.sinks, o.recent}}.with(heads::threshold{o.threshold, o.floor});
}

}  // namespace presets
}  // namespace KVEVICT_ABI
}  // namespace kvevict
