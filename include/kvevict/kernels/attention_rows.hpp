// SPDX-License-Identifier: Apache-2.0
// Host kernels: window scores and column sums from softmax rows that the engine hands in.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include <kvevict/cache/layer_view.hpp>
#include <kvevict/core/attention_rows.hpp>
#include <kvevict/core/fill.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/kernels/expect_window.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/kernels/pool.hpp>
#include <kvevict/kernels/step_gain.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {
/// One softmax row, sharpened or flattened to a^g / Σ a^g over the tokens it sees, added to `sums` (N).
inline void add_row(float const* a, std::int64_t seen, float gain, float* sums) {
  if (gain == 1.0f) {
    for (std::int64_t j = 0; j < seen; ++j) sums[j] += a[j];
    return;
  }
  double whole = 0;
  for (std::int64_t j = 0; j < seen; ++j) whole += __builtin_powf(a[j], gain);
  for (std::int64_t j = 0; j < seen; ++j) sums[j] += static_cast<float>(__builtin_powf(a[j], gain) / whole);
}

/// One query head's weights, summed over the window, into `sums` (N); false when a weight is not within [0, 1].
inline bool sum_window(attention_rows const& a, window_options const& o, row const& in, bool scattered, std::int32_t hq,
                       float* sums) {
  std::int32_t const have = a.rows(in.sequence), end = have - o.skip, W = std::min({o.rows, end, in.tokens});
  kvevict::fill_n(sums, in.tokens, 0.0f);
  bool sound = true;
  for (std::int32_t i = end - W; i < end; ++i) {
    std::int64_t const t = a.row_begin[in.sequence] + i;
    float const* weights = a.weights + t * a.token_stride + hq * a.head_stride;
    std::int64_t const at = in.tokens - have + i, seen = scattered ? in.tokens : at + 1;
    for (std::int64_t j = 0; j < seen; ++j) sound &= !((weights[j] > 1.001f) | (weights[j] < 0.0f));
    std::int64_t const position = a.positions == nullptr ? at : a.positions[t];
    add_row(weights, seen, o.weights == weighting::softmax ? 1.0f : step_gain(position + 1, in.budget, o.min_gain),
            sums);
  }
  return sound;
}

/// Scratch: N floats a worker.
template <class Entry>
void kernel(window_scores_tag, host& ctx, layer_view<Entry> const& view, attention_rows const& a,
            window_options const& o, score_rows const& out) {
  expect_window_rows(o);
  std::int32_t const G = out.count() == 0 ? 1 : a.heads / out.heads;
  std::int64_t longest = 0;
  for (std::int64_t r = 0; r < out.count(); ++r) {
    row const& in = out.rows[r];
    longest = std::max<std::int64_t>(longest, in.tokens);
    KVEVICT_EXPECTS(!in.active || o.rows == std::numeric_limits<std::int32_t>::max() ||
                        a.rows(in.sequence) >= std::min(o.rows + o.skip, in.tokens),
                    "evidence: sequence ", in.sequence, " hands in ", a.rows(in.sequence),
                    " softmax rows and the score reads ", std::min(o.rows + o.skip, in.tokens),
                    "; hand in the rows of its newest tokens");
  }
  KVEVICT_EXPECTS(o.pool_before_group.width == 1,
                  "window_scores: pool_before_group needs queries; softmax rows are reduced first");
  KVEVICT_EXPECTS(out.positions == nullptr || o.rows == 1,
                  "window_scores: the rows are scattered; only one newest row can be read");
  frame scratch(ctx.scratch());
  float* parts = scratch.take<float>(longest * ctx.concurrency());
  std::atomic<bool> sound{true};
  ctx.for_each(
      out.count(),
      [&](std::int64_t r, std::int32_t slot) {
        row const& in = out.rows[r];
        if (!in.active || in.tokens == 0) return;
        float *sums = parts + slot * longest, *scores = out.scores(r).data;
        std::int32_t const W = std::min({o.rows, a.rows(in.sequence) - o.skip, in.tokens});
        float const share = (o.reduce == row_reduce::mean ? 1.0f / static_cast<float>(W) : 1.0f) *
                            (o.group == group_reduce::mean ? 1.0f / static_cast<float>(G) : 1.0f);
        for (std::int32_t g = 0; g < G; ++g) {
          if (!sum_window(a, o, in, out.positions != nullptr, in.head * G + g, sums))
            sound.store(false, std::memory_order_relaxed);
          for (std::int32_t j = 0; j < in.tokens; ++j)
            scores[j] = g == 0                         ? sums[j]
                        : o.group == group_reduce::max ? larger_or_nan(sums[j], scores[j])
                                                       : scores[j] + sums[j];
        }
        for (std::int32_t j = 0; j < in.tokens; ++j) scores[j] *= share;
      },
      out.begin[out.count()] * G);
  KVEVICT_EXPECTS(
      sound.load(),
      "evidence: a softmax weight is above 1 or below 0; hand in normalised attention weights, not logits or sums");
  pool(ctx, o.pool, out);
  static_cast<void>(view);
}

template <class Entry>
void kernel(column_sums_tag, host& ctx, layer_view<Entry> const& view, attention_rows const& a, group_reduce group,
            score_rows const& out) {
  for (std::int64_t r = 0; r < out.count(); ++r)
    KVEVICT_EXPECTS(!out.rows[r].active || a.rows(out.rows[r].sequence) == out.rows[r].tokens, "evidence: sequence ",
                    out.rows[r].sequence, " hands in ", a.rows(out.rows[r].sequence), " softmax rows for ",
                    out.rows[r].tokens,
                    " tokens; accumulated attention needs a row of every token, or a state that observe has filled");
  window_scores(ctx, view, a, window_options{std::numeric_limits<std::int32_t>::max(), row_reduce::sum, group}, out);
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
