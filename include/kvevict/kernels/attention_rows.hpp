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
  for (std::int64_t j = 0; j < seen; ++j) whole += __builtin_powf(a[j], gain);
  for (std::int64_t j = 0; j < seen; ++j) sums[j] += static_cast<float>(__builtin_powf(a[j], gain) / whole);
}

/// Σ of floats, in vectors.
inline double sum_of_floats(float const* x, std::int64_t n) {
  vec sums = {};
  std::int64_t j = 0;
  for (; j + lanes <= n; j += lanes) sums += load(x + j);
  sums += load_some(x + j, n - j);
  double sum = 0;
  for (int i = 0; i < lanes; ++i) sum += static_cast<double>(sums[i]);
  return sum;
}

/// The softmax rows that a window reads of one row of the cache, each token's weight in its place.
template <class Entry> class softmax_reader {
 public:
  /// `buffer`: N floats of scratch.
  softmax_reader(layer_view<Entry> const& view, attention_rows const& a, window_options const& o, score_rows const& out,
                 std::int64_t r, float* buffer)
      : view_(view),
        a_(a),
        in_(out.rows[r]),
        window_(newest_rows(view, a, in_.sequence, in_.tokens, o.rows, o.place)),
        sights_(sights_of(view, a, in_.sequence, in_.head, in_.tokens, window_, o.place)),
        orders_(out.positions == nullptr ? nullptr : out.positions + out.begin[r]),
        buffer_(buffer) {
    window_.always = sights_.always();
  }

  std::int32_t rows() const { return window_.count; }
  std::int64_t position(std::int32_t w) const { return sights_.position(w); }
  sight seen(std::int32_t w) const {
    return sees_by_index(view_, a_) && orders_ == nullptr ? window_.of(w) : sights_.of(w);
  }
  bool sees(std::int32_t w, std::int64_t j) const {
    std::int32_t const order = orders_ == nullptr ? static_cast<std::int32_t>(j) : orders_[j];
    sight const s = seen(w);
    return order < s.to && (order >= s.from || window_.always.has(order));
  }
  bool sees_none(std::int32_t w) const {
    for (std::int64_t j = 0; j < in_.tokens; ++j)
      if (sees(w, j)) return false;
    return true;
  }
  /// Weights of window row w of query head hq, those of tokens that it does not see left out.
  slice<float const> read(std::int32_t w, std::int32_t hq) const {
    float const* const x = a_.weights_of(in_.sequence) + (window_.first + w) * a_.token_stride + hq * a_.head_stride;
    sight const s = seen(w);
    if (orders_ == nullptr && a_.by == columns::by_slot && s.from <= 0) return {x, std::min(s.to, in_.tokens)};
    for (std::int64_t j = 0; j < in_.tokens; ++j) buffer_[j] = sees(w, j) ? x[column_of(j)] : 0.0f;
    return {buffer_, in_.tokens};
  }
  /// Of the row among those of its sequence.
  std::int64_t number(std::int32_t w) const { return window_.first + w - a_.first_row(in_.sequence); }

 private:
  std::int64_t column_of(std::int64_t j) const {
    if constexpr (page_table<Entry>::holds_pointers) {
      return j;
    } else {
      if (a_.by == columns::by_slot) return j;
      std::int64_t const size = view_.pages.page_size, page = j / size;
      return static_cast<std::int64_t>(view_.pages.entry(in_.sequence, in_.head, page)) * size + j % size;
    }
  }

  layer_view<Entry> const& view_;
  attention_rows const& a_;
  row const& in_;
  window_rows window_;
  row_sights<Entry> sights_;
  std::int32_t const* orders_;
  float* buffer_;
};

/// Columns that are cells lie within a softmax row.
template <class Entry> void expect_cells(layer_view<Entry> const& view, attention_rows const& a, row const& in) {
  if (a.by == columns::by_slot || a.rows(in.sequence) == 0) return;
  KVEVICT_EXPECTS(!page_table<Entry>::holds_pointers,
                  "evidence: columns::by_entry needs a table of page ids, and this one holds addresses; give the "
                  "weights by slot");
  std::int64_t const size = view.pages.page_size;
  if constexpr (!page_table<Entry>::holds_pointers)
    for (std::int64_t i = 0; i * size < in.tokens; ++i) {
      std::int64_t const used = std::min<std::int64_t>(size, in.tokens - i * size),
                         end = static_cast<std::int64_t>(view.pages.entry(in.sequence, in.head, i)) * size + used;
      if (end > a.slots) messages::softmax_slots(a.slots, in.sequence, in.head, end);
    }
}

enum class row_fault : std::uint8_t { none, weight, sum };
/// The row's weights lie in [0, 1] and add up to what the engine says. What is not a number is found by its score.
template <class Entry>
row_fault fault_of_row(softmax_reader<Entry> const& reader, attention_rows const& a, std::int32_t w,
                       slice<float const> x, double sum) {
  bool sound = true;
  for (std::int64_t j = 0; j < x.size; ++j) sound &= !((x[j] > 1.001f) | (x[j] < 0.0f));
  if (!sound) return row_fault::weight;
  bool const is_wrong = sum > 1 + softmax_tolerance || (a.sum == row_sum::one && sum < 1 - softmax_tolerance);
  return is_wrong && !reader.sees_none(w) ? row_fault::sum : row_fault::none;
}

/// One query head's weights of window rows [first, last), added up in `sums` (N); false when a row is not sound.
template <class Entry>
bool sum_rows(softmax_reader<Entry> const& reader, attention_rows const& a, window_options const& o, row const& in,
              std::int32_t first, std::int32_t last, std::int32_t hq, float* sums) {
  kvevict::fill_n(sums, in.tokens, 0.0f);
  bool sound = true;
  for (std::int32_t w = first; w < last; ++w) {
    slice<float const> const x = reader.read(w, hq);
    sound &= fault_of_row(reader, a, w, x, sum_of_floats(x.data, x.size)) == row_fault::none;
    std::int64_t const p = reader.position(w);
    float const gain =
        o.weights == weighting::step_gain ? step_gain((p < 0 ? in.tokens - 1 : p) + 1, in.budget, o.min_gain) : 1.0f;
    add_row(x.data, x.size, gain, sums);
  }
  return sound;
}

/// Those rows' weights, reduced over the rows and the G heads of the group, to `scores` (N).
template <class Entry>
bool reduce_rows(softmax_reader<Entry> const& reader, attention_rows const& a, window_options const& o, row const& in,
                 std::int32_t first, std::int32_t last, std::int32_t G, float* sums, float* scores) {
  bool sound = true;
  float const share = (o.reduce == row_reduce::mean ? 1.0f / static_cast<float>(last - first) : 1.0f) *
                      (o.group == group_reduce::mean ? 1.0f / static_cast<float>(G) : 1.0f);
  for (std::int32_t g = 0; g < G; ++g) {
    sound &= sum_rows(reader, a, o, in, first, last, in.head * G + g, sums);
    for (std::int32_t j = 0; j < in.tokens; ++j)
      scores[j] = g == 0                         ? sums[j]
                  : o.group == group_reduce::max ? larger_or_nan(sums[j], scores[j])
                                                 : scores[j] + sums[j];
  }
  for (std::int32_t j = 0; j < in.tokens; ++j) scores[j] *= share;
  return sound;
}

/// Says what is wrong with the first row that is not sound.
template <class Entry>
void violate_row(softmax_reader<Entry> const& reader, attention_rows const& a, row const& in, std::int32_t G) {
  for (row_fault const what : {row_fault::weight, row_fault::sum})
    for (std::int32_t i = 0; i < G * reader.rows(); ++i) {
      std::int32_t const w = i % reader.rows(), hq = in.head * G + i / reader.rows();
      slice<float const> const x = reader.read(w, hq);
      double const sum = sum_of_floats(x.data, x.size);
      if (fault_of_row(reader, a, w, x, sum) != what) continue;
      if (what == row_fault::weight) messages::softmax_weight(in.sequence, in.head);
      messages::softmax_sum(in.sequence, in.head, hq, reader.number(w), sum);
    }
}

/// Scratch of softmax rows: two rows of floats a worker.
constexpr std::int64_t softmax_rows_bytes(std::int64_t tokens, std::int64_t concurrency) {
  return padded(concurrency * 2 * tokens * 4, 64);
}

/// Window scores, or the weights of every window row in a plane of its own.
template <class Entry>
void reduce_weights(host& ctx, layer_view<Entry> const& view, attention_rows const& a, window_options const& o,
                    score_rows const& out, bool apart) {
  expect_window_rows(o), expect_visibility(a.sees);
  std::int32_t const G = out.count() == 0 ? 1 : a.heads / out.heads;
  std::int64_t longest = 0;
  for (std::int64_t r = 0; r < out.count(); ++r) {
    row const& in = out.rows[r];
    longest = std::max<std::int64_t>(longest, in.tokens);
    if (!in.active) continue;
    if (!out.observed && o.rows != std::numeric_limits<std::int32_t>::max() &&
        a.rows(in.sequence) < rows_needed(o.rows, in.tokens))
      messages::too_few_softmax_rows(in.sequence, a.rows(in.sequence), rows_needed(o.rows, in.tokens));
    expect_cells(view, a, in), expect_sights(view, a, in, o.rows, o.place);
  }
  KVEVICT_EXPECTS(o.pool_before_group.width == 1,
                  "window_scores: pool_before_group needs queries; softmax rows are reduced first");
  expect_one_row("window_scores", a, o, out);
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
