// SPDX-License-Identifier: Apache-2.0
// Attention-Gate's inference on a device.
#pragma once

#include <kvevict/cuda/gate/attention.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

void has_kernel(kernels::gate_tag, device&);
void has_kernel(kernels::put_rows_tag, device&);
void has_kernel(kernels::expect_prompt_tag, device&);

/// p of one (token, KV head) per thread: sigmoid of the output weights over C, the largest of the head's flags.
///
/// Shapes   sums (B·most_rows, A), weights (flags, A) → p (T,H).
struct gate_output_kernel {
  static constexpr int max_threads = 128;
  gate_call c;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (c.watch.stopped(t)) return;
    auto const b = static_cast<std::int32_t>(t.block().x / c.tiles);
    std::int64_t const at = std::int64_t{t.block().x % c.tiles} * t.block_size().x + t.linear_index(), i = at / c.heads,
                       h = at % c.heads, A = c.w.width();
    if (i >= c.in.rows(b)) return;
    float const* const values = c.queries + (c.first_row(b) + i) * A;
    std::int64_t const group = c.w.flags / c.heads;
    float best = 0;
    bool number = true;
    for (std::int64_t f = h * group; f < (h + 1) * group; ++f) {
      float z = float_at(c.w.type, c.w.bias, f);
      for (std::int64_t a = 0; a < A; ++a) z = fma(float_at(c.w.type, c.w.o, f * A + a), values[a], z);
      float const x = 1.0f / (1.0f + exp2(z * -1.442695040888963f));
      number = number && x == x;
      best = x > best ? x : best;
    }
    if (!number) c.watch.refuse(t, fault::gate_not_a_number, b, static_cast<std::int32_t>(h), 0, 0, i);
    c.p[(c.first_row(b) + i) * c.heads + h] = best;
  }
};

/// Keep probabilities of the new tokens: the host's formula (kernels/gate.hpp); K' and V' go to the gate's memory.
///
/// Shapes   features (T,E), everything in device memory → p (T,H) float.
/// Cost     6·T·E·A flop without tensor cores, then 4·T·N·A; four launches. Scratch 4·A bytes a new token (of
///          B·most_rows), 12·A without a memory. Up to 64 new tokens a sequence: the memory's rows are shared out to
///          blocks, one launch and an eighth of its size more. Best with gate heads of 64 and less.
/// Errors   as on the host; what only the device sees before anything is written, but for fault::gate_not_a_number.
inline void kernel(kernels::gate_tag, device& ctx, gate_weights const& w, feature_rows const& in, gate_mask sees,
                   std::int32_t sequences, std::int32_t heads, float* p) {
  expect_gate(w, in, sequences, heads);
  if (sequences == 0) return;
  expect_most_rows(in.most_rows);
  expect_feature_stride(in, farthest_row);
  KVEVICT_EXPECTS(w.head_dim <= wide_gate_attention_kernel::most_width, "gate: heads of ", w.head_dim,
                  " numbers do not fit a block's shared memory; use more, "
                  "narrower gate heads of at most ",
                  wide_gate_attention_kernel::most_width);
  frame scratch(ctx.scratch());
  std::int64_t const A = w.width(), rows = std::int64_t{sequences} * in.most_rows;
  gate_call c{ctx.watch(),
              w,
              in,
              sees,
              sequences,
              heads,
              scratch.allocate<float>(rows * A),
              in.memory.rows != nullptr ? nullptr : scratch.allocate<float>(rows * 2 * A),
              p};
  ctx.launch({blocks_for(sequences, 128)}, {128}, 0, check_gate_kernel{c});
  project(ctx, c);
  attend(ctx, scratch, c);
  c.tiles = blocks_for(std::int64_t{in.most_rows} * heads, 128);
  ctx.launch({static_cast<std::uint32_t>(sequences) * c.tiles}, {128}, 0, gate_output_kernel{c});
}

/// p of the newest tokens into the scores of the active rows; a thread per token.
///
/// Shapes   p (T,H) → scores (B·H, N).
struct put_rows_kernel {
  static constexpr int max_threads = 256;
  watched watch;
  feature_rows in;
  float const* p;
  score_rows out;
  std::uint32_t chunks;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (watch.stopped(t)) return;
    std::int64_t r, j = token_of(t, out, chunks, r);
    if (j < 0) return;
    row const& it = out.rows[r];
    std::int64_t const n = in.rows(it.sequence), newest = j - (it.tokens - n);
    bool const here = out.positions == nullptr ? newest >= 0 : n == 1 && out.order(r, j) >= out.newest_order(r);
    if (here)
      out.values[out.begin[r] + j] =
          p[(in.room_before(it.sequence) + (out.positions == nullptr ? newest : 0)) * out.heads + it.head];
  }
};
inline void kernel(kernels::put_rows_tag, device& ctx, feature_rows const& in, float const* p, score_rows const& out) {
  std::uint32_t const chunks = blocks_for(out.most_tokens, 256);
  ctx.launch({static_cast<std::uint32_t>(out.count()) * chunks}, {256}, 0,
             put_rows_kernel{ctx.watch(), in, p, out, chunks});
}

/// The hidden states are those of the whole cache; one thread per row.
///
/// Shapes   token counts (B), rows (B·H) → nothing.
struct expect_prompt_kernel {
  static constexpr int max_threads = 128;
  watched watch;
  feature_rows in;
  score_rows out;

  KVEVICT_DEVICE void operator()(thread& t) const {
    std::int64_t const r = std::int64_t{t.block().x} * t.block_size().x + t.linear_index();
    if (r >= out.count() || watch.stopped(t)) return;
    row const& it = out.rows[r];
    if (it.active && in.rows(it.sequence) != it.tokens)
      watch.refuse(t, fault::prompt, it.sequence, it.head, in.rows(it.sequence), it.tokens);
    if (in.rows(it.sequence) > 0 && in.memory.rows != nullptr && in.memory.tokens != nullptr &&
        in.memory.tokens[it.sequence] != 0)
      watch.refuse(t, fault::gate_memory_holds, it.sequence, it.head, in.memory.tokens[it.sequence]);
  }
};
inline void kernel(kernels::expect_prompt_tag, device& ctx, feature_rows const& in, score_rows const& out) {
  KVEVICT_EXPECTS(out.positions == nullptr,
                  "gate: the rows are in no order; plan from a whole prompt, or observe its chunks and plan from "
                  "remembered(cache)");
  ctx.launch({blocks_for(out.count(), 128)}, {128}, 0, expect_prompt_kernel{ctx.watch(), in, out});
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
