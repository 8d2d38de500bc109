// SPDX-License-Identifier: Apache-2.0
// Host kernels: window scores and column sums from softmax rows that the engine provides.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include <kvevict/cache/layer_view.hpp>
#include <kvevict/core/attention_rows.hpp>
#include <kvevict/core/evidence_messages.hpp>
#include <kvevict/core/fill.hpp>
#include <kvevict/core/messages.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/core/step_gain.hpp>
#include <kvevict/kernels/expect_window.hpp>
#include <kvevict/kernels/first_row.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/kernels/pool.hpp>
#include <kvevict/kernels/require_finite.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

void has_kernel(window_scores_tag, host&);
void has_kernel(window_weights_tag, host&);
void has_kernel(column_sums_tag, host&);

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

/// One query head's weights of window rows [first, last), added up in `sums` (N); false when one is not within [0, 1].
inline bool sum_rows(attention_rows const& a, window_options const& o, row const& in, window_rows const& window,
                     std::int32_t first, std::int32_t last, std::int32_t hq, float* sums) {
  kvevict::fill_n(sums, in.tokens, 0.0f);
  bool sound = true;
  for (std::int32_t w = first; w < last; ++w) {
    float const* weights = a.weights_of(in.sequence) + (window.first + w) * a.token_stride + hq * a.head_stride;
    std::int64_t const seen = window.sees(w);
    for (std::int64_t j = 0; j < seen; ++j) sound &= !((weights[j] > 1.001f) | (weights[j] < 0.0f));
    bool const gained = o.weights == weighting::step_gain;
    add_row(weights, seen,
            gained ? step_gain(window.position(a.positions_of(in.sequence), w) + 1, in.budget, o.min_gain) : 1.0f,
            sums);
  }
  return sound;
}

/// Those rows' weights, reduced over the rows and the G heads of the group, to `scores` (N).
inline bool reduce_rows(attention_rows const& a, window_options const& o, row const& in, window_rows const& window,
                        std::int32_t first, std::int32_t last, std::int32_t G, float* sums, float* scores) {
  bool sound = true;
  float const share = (o.reduce == row_reduce::mean ? 1.0f / static_cast<float>(last - first) : 1.0f) *
                      (o.group == group_reduce::mean ? 1.0f / static_cast<float>(G) : 1.0f);
  for (std::int32_t g = 0; g < G; ++g) {
    sound &= sum_rows(a, o, in, window, first, last, in.head * G + g, sums);
    for (std::int32_t j = 0; j < in.tokens; ++j)
      scores[j] = g == 0                         ? sums[j]
                  : o.group == group_reduce::max ? larger_or_nan(sums[j], scores[j])
                                                 : scores[j] + sums[j];
  }
  for (std::int32_t j = 0; j < in.tokens; ++j) scores[j] *= share;
  return sound;
}

/// Window scores, or the weights of every window row in a plane of its own. Scratch: N floats a worker.
inline void reduce_weights(host& ctx, attention_rows const& a, window_options const& o, score_rows const& out,
                           bool apart) {
  expect_window_rows(o);
  std::int32_t const G = out.count() == 0 ? 1 : a.heads / out.heads;
  std::int64_t longest = 0;
  for (std::int64_t r = 0; r < out.count(); ++r) {
    row const& in = out.rows[r];
    longest = std::max<std::int64_t>(longest, in.tokens);
    if (in.active && !out.observed && o.rows != std::numeric_limits<std::int32_t>::max() &&
        a.rows(in.sequence) < rows_needed(o.rows, in.tokens))
      messages::too_few_softmax_rows(in.sequence, a.rows(in.sequence), rows_needed(o.rows, in.tokens));
  }
  KVEVICT_EXPECTS(o.pool_before_group.width == 1,
                  "window_scores: pool_before_group needs queries; softmax rows are reduced first");
  KVEVICT_EXPECTS(out.positions == nullptr || o.rows == 1,
                  "window_scores: the rows are scattered; only one newest row can be read");
  frame scratch(ctx.scratch());
  float* parts = scratch.allocate<float>(longest * ctx.concurrency());
  first_row unsound;
  auto const reduce = [&](std::int64_t r, std::int32_t slot) {
    row const& in = out.rows[r];
    if (!in.active || in.tokens == 0) return;
    window_rows const w = newest_rows(a, in.sequence, in.tokens, o.rows, visibility::causal, out.positions != nullptr);
    std::int32_t const step = apart ? 1 : w.count, planes = apart ? w.count : 1;
    for (std::int32_t i = 0; i < planes; ++i)
      if (!reduce_rows(a, o, in, w, i * step, (i + 1) * step, G, parts + slot * longest, out.plane(i).scores(r).data))
        unsound.add(r);
  };
  ctx.for_each(out.count(), reduce, out.begin[out.count()] * G);
  if (unsound.found()) messages::softmax_weight(out.rows[unsound.get()].sequence, out.rows[unsound.get()].head);
}

template <class Entry>
void kernel(window_scores_tag, host& ctx, layer_view<Entry> const&, attention_rows const& a, window_options const& o,
            score_rows const& out) {
  reduce_weights(ctx, a, o, out, false);
  pool(ctx, o.pool, out);
}

template <class Entry>
void kernel(window_weights_tag, host& ctx, layer_view<Entry> const&, attention_rows const& a, window_options o,
            score_rows const& out) {
  o.reduce = row_reduce::sum;
  expect_single_rows(o, out);
  reduce_weights(ctx, a, o, out, true);
  require_finite_planes(ctx, out, a, o.rows);
}

template <class Entry>
void kernel(column_sums_tag, host& ctx, layer_view<Entry> const& view, attention_rows const& a, group_reduce group,
            score_rows const& out) {
  for (std::int64_t r = 0; r < out.count(); ++r)
    if (row const& it = out.rows[r]; it.active && a.rows(it.sequence) != it.tokens)
      messages::not_all_rows("evidence", it.sequence, a.rows(it.sequence), "softmax", it.tokens);
  window_scores(ctx, view, a, window_options{std::numeric_limits<std::int32_t>::max(), row_reduce::sum, group}, out);
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
