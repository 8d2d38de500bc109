// SPDX-License-Identifier: Apache-2.0
// Gate inference: a reduced attention over all tokens so far and a sigmoid.
#pragma once

#include <kvevict/core/score_rows.hpp>
#include <kvevict/kernels/gate_pass.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

void has_kernel(gate_tag, host&);
void has_kernel(expect_prompt_tag, host&);
void has_kernel(most_rows_tag, host&);
void has_kernel(put_rows_tag, host&);

/// Keep probabilities of the new tokens of every sequence.
///
///   Q', K', V' = X Wqᵀ, X Wkᵀ, X Wvᵀ;   C = concat_h softmax_{n ≤ t}( Q'_h K'_hᵀ / √dg ) V'_h;   p = sigmoid(C Woᵀ +
///   b)
///
/// Paper    Attention-Gate, Zeng et al. 2024, arXiv:2410.12876: a reduced multi-head attention and a gating function
///          before each layer. Ours: sizes, the causal mask, one flag per KV head; with Hq flags a KV head takes the
///          largest p of its group.
/// Shapes   features (T,E) ragged, f32, f16 or bf16 → p (T,H) float. The memory's rows of the new tokens are written.
/// Cost     6·T·E·A + 4·T·N·A flop, A = Hg·dg, N tokens so far (half under the causal mask within a prompt); scratch
///          gate_shape::bytes, O(T·A), never N×N.
/// Errors   contract_violation: weights, features or memory that do not fit; a probability that is not a number. The
///          memory is as it was then, whatever is thrown.
inline void kernel(gate_tag, host& ctx, gate_weights const& w, feature_rows const& in, gate_mask sees,
                   std::int32_t sequences, std::int32_t heads, float* p) {
  expect_gate(w, in, sees, sequences, heads);
  gate_pass(ctx, w, in, sees, sequences, heads, p).run();
}

inline void kernel(expect_prompt_tag, host&, feature_rows const& in, score_rows const& out) {
  for (std::int64_t r = 0; r < out.count(); ++r)
    if (row const& it = out.rows[r]; it.active && (out.positions != nullptr || in.rows(it.sequence) != it.tokens))
      messages::not_the_prompt(it.sequence, in.rows(it.sequence), it.tokens);
  for (std::int32_t b = 0; b < out.sequences && in.memory.rows != nullptr && in.memory.tokens != nullptr; ++b)
    if (in.rows(b) > 0 && in.memory.tokens[b] != 0) messages::gate_memory_holds(in.memory.tokens[b], b);
}
inline std::int64_t kernel(most_rows_tag, host&, feature_rows const& in, std::int32_t sequences) {
  return rows_before(in, sequences);
}

/// p (T,H) into the scores of the newest tokens of every active row, in order. No scratch. Not by the executor, which
/// may throw: the gate's memory has been written.
inline void kernel(put_rows_tag, host&, feature_rows const& in, float const* p, score_rows const& out) {
  std::int64_t before = 0;
  for (std::int64_t r = 0; r < out.count(); ++r) {
    row const& it = out.rows[r];
    std::int64_t const first = before, n = in.rows(it.sequence);
    if (it.head == out.heads - 1) before += n;
    if (!it.active) continue;
    float* const to = out.scores(r).data;
    auto const at = [&](std::int64_t t) { return p[(first + t) * out.heads + it.head]; };
    if (out.positions == nullptr)
      for (std::int64_t t = 0; t < n; ++t) to[it.tokens - n + t] = at(t);
    else if (n == 1)
      for (std::int32_t j = 0, from = out.newest_order(r); j < it.tokens; ++j)
        if (out.order(r, j) >= from) to[j] = at(0);
  }
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
