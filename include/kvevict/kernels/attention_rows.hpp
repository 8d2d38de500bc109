// SPDX-License-Identifier: Apache-2.0
// Host kernels: window scores and column sums from softmax rows that the engine provides.
#pragma once

#include <algorithm>
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
#include <kvevict/kernels/softmax_reader.hpp>
#include <kvevict/kernels/window_rows.hpp>

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
  for (std::int64_t j = 0; j < seen; ++j) whole += static_cast<double>(__builtin_powf(a[j], gain));
  for (std::int64_t j = 0; j < seen; ++j)
    sums[j] += static_cast<float>(static_cast<double>(__builtin_powf(a[j], gain)) / whole);
}

/// One query head's weights of window rows [first, last), added to `sums` (N), or put there; false when a row is not
/// sound.
template <class Entry>
bool sum_rows(softmax_reader<Entry> const& reader, attention_rows const& a, window_options const& o, row const& in,
              std::int32_t first, std::int32_t last, std::int32_t hq, bool adds, float* sums) {
  if (!adds) kvevict::fill_n(sums, in.tokens, 0.0f);
  bool sound = true;
  for (std::int32_t w = first; w < last; ++w) {
    slice<float const> const x = reader.read(w, hq);
    sound &= fault_of_row(reader, a, w, x) == row_fault::none;
    std::int64_t const p = reader.position(w);
    float const gain =
        o.weights == weighting::step_gain ? step_gain((p < 0 ? in.tokens - 1 : p) + 1, in.budget, o.min_gain) : 1.0f;
    add_row(x.data, x.size, gain, sums);
  }
  return sound;
}

/// Those rows' weights, reduced over the rows and the G heads of the group, to `scores` (N). `sums` (N): of a head,
/// where its rows are reduced before they join the others.
template <class Entry>
bool reduce_rows(softmax_reader<Entry> const& reader, attention_rows const& a, window_options const& o, row const& in,
                 std::int32_t first, std::int32_t last, std::int32_t G, float* sums, float* scores) {
  bool sound = true;
  float const share = (o.reduce == row_reduce::mean ? 1.0f / static_cast<float>(last - first) : 1.0f) *
                      (o.group == group_reduce::mean ? 1.0f / static_cast<float>(G) : 1.0f);
  bool const largest = o.group == group_reduce::max, apart = largest || last - first > 1;
  for (std::int32_t g = 0; g < G; ++g) {
    float* const to = g == 0 || !apart ? scores : sums;
    sound &= sum_rows(reader, a, o, in, first, last, in.head * G + g, g != 0 && !apart, to);
    for (std::int32_t j = 0; to == sums && j < in.tokens; ++j)
      scores[j] = largest ? larger_or_nan(sums[j], scores[j]) : scores[j] + sums[j];
  }
  for (std::int32_t j = 0; j < in.tokens; ++j) scores[j] *= share;
  return sound;
}

/// Scratch of softmax rows: two rows of floats a worker.
constexpr std::int64_t softmax_rows_bytes(std::int64_t tokens, std::int64_t concurrency) {
  return padded(concurrency * 2 * tokens * 4, 64);
}

/// Window scores, or the weights of every window row in a plane of its own.
template <class Entry>
void reduce_weights(host& ctx, layer_view<Entry> const& view, attention_rows const& a, window_options const& o,
                    score_rows const& out, bool apart) {
  expect_softmax_window("window_scores", view, a, o, out);
  std::int32_t const G = out.count() == 0 ? 1 : a.heads / out.heads;
  std::int64_t longest = 0;
  for (std::int64_t r = 0; r < out.count(); ++r) longest = std::max<std::int64_t>(longest, out.rows[r].tokens);
  frame scratch(ctx.scratch());
  float* parts = scratch.allocate<float>(2 * longest * ctx.concurrency());
  first_row unsound;
  auto const reduce = [&](std::int64_t r, std::int32_t slot) {
    row const& in = out.rows[r];
    if (!in.active || in.tokens == 0) return;
    float* const sums = parts + slot * 2 * longest;
    softmax_reader<Entry> const reader(view, a, o, out, r, sums + longest);
    std::int32_t const step = apart ? 1 : reader.rows(), planes = apart ? reader.rows() : 1;
    for (std::int32_t i = 0; i < planes; ++i)
      if (!reduce_rows(reader, a, o, in, i * step, (i + 1) * step, G, sums, out.plane(i).scores(r).data))
        unsound.add(r);
  };
  ctx.for_each(out.count(), reduce, out.begin[out.count()] * G);
  if (!unsound.found()) return;
  std::int64_t const r = unsound.get();
  violate_row(softmax_reader<Entry>(view, a, o, out, r, parts), a, out.rows[r], G);
}

template <class Entry>
void kernel(window_scores_tag, host& ctx, layer_view<Entry> const& view, attention_rows const& a,
            window_options const& o, score_rows const& out) {
  reduce_weights(ctx, view, a, o, out, false);
  pool(ctx, o.pool, out);
}

template <class Entry>
void kernel(window_weights_tag, host& ctx, layer_view<Entry> const& view, attention_rows const& a, window_options o,
            score_rows const& out) {
  o.reduce = row_reduce::sum;
  expect_single_rows(o, out);
  reduce_weights(ctx, view, a, o, out, true);
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
