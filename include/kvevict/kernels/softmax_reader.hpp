// SPDX-License-Identifier: Apache-2.0
// Softmax rows that an engine provides, as far as each sees the tokens of one row of the cache.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include <kvevict/cache/row_sights.hpp>
#include <kvevict/core/attention_rows.hpp>
#include <kvevict/core/evidence_messages.hpp>
#include <kvevict/core/messages.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/kernels/simd.hpp>
#include <kvevict/kernels/window_rows.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

/// From the least of n orders to behind the largest.
inline sight extent_of(std::int32_t const* orders, std::int64_t n) {
  std::int32_t least = std::numeric_limits<std::int32_t>::max(), most = -1;
  for (std::int64_t j = 0; j < n; ++j) least = std::min(least, orders[j]), most = std::max(most, orders[j]);
  return {least, most + 1};
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
        orders_(out.positions_of(r)),
        held_(orders_ == nullptr ? sight{0, in_.tokens} : extent_of(orders_, in_.tokens)),
        buffer_(buffer) {
    window_.always = sights_.always();
  }

  std::int32_t rows() const { return window_.count; }
  std::int64_t position(std::int32_t w) const { return sights_.position(w); }
  bool sees_none(std::int32_t w) const {
    sight const s = seen(w);
    for (std::int64_t j = 0; j < in_.tokens; ++j)
      if (is_in(s, j)) return false;
    return true;
  }
  /// Weights of window row w of query head hq, those of tokens that it does not see left out.
  slice<float const> read(std::int32_t w, std::int32_t hq) const {
    float const* const x = a_.weights_of(in_.sequence) + (window_.first + w) * a_.token_stride + hq * a_.head_stride;
    sight const s = seen(w);
    if (a_.by == columns::by_slot && s.from <= held_.from) {
      if (orders_ == nullptr) return {x, std::min(s.to, in_.tokens)};
      if (s.to >= held_.to) return {x, in_.tokens};
    }
    for (std::int64_t j = 0; j < in_.tokens; ++j) buffer_[j] = is_in(s, j) ? x[column_of(j)] : 0.0f;
    return {buffer_, in_.tokens};
  }
  /// Of the row among those of its sequence.
  std::int64_t number(std::int32_t w) const { return window_.first + w - a_.first_row(in_.sequence); }

 private:
  sight seen(std::int32_t w) const {
    return sees_by_index(view_, a_) && orders_ == nullptr ? window_.of(w) : sights_.of(w);
  }
  /// Token j is among what a row with that sight sees.
  bool is_in(sight const& s, std::int64_t j) const {
    std::int32_t const order = orders_ == nullptr ? static_cast<std::int32_t>(j) : orders_[j];
    return order < s.to && (order >= s.from || window_.always.has(order));
  }
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
  sight held_;  // orders of the row's tokens lie in it
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

/// There are as many softmax rows as the window needs, and it can be told what each sees.
template <class Entry>
void expect_softmax_window(char const* verb, layer_view<Entry> const& view, attention_rows const& a,
                           window_options const& o, score_rows const& out) {
  expect_window_rows(o), expect_visibility(a.sees);
  for (std::int64_t r = 0; r < out.count(); ++r) {
    row const& in = out.rows[r];
    if (!in.active) continue;
    if (!out.observed && o.rows != std::numeric_limits<std::int32_t>::max() &&
        a.rows(in.sequence) < rows_needed(o.rows, in.tokens))
      messages::too_few_softmax_rows(in.sequence, a.rows(in.sequence), rows_needed(o.rows, in.tokens));
    expect_cells(view, a, in), expect_sights(view, a, in, o.rows, o.place);
  }
  KVEVICT_EXPECTS(o.pool_before_group.width == 1, verb,
                  ": pool_before_group needs queries; softmax rows are reduced first");
  expect_one_row(verb, a, o, out);
}

/// Of a softmax row.
struct seen_weights {
  double sum;
  bool sound;  // all lie in [0, 1], as far as they are numbers
};
/// In one pass; sums, highest and lowest of every second vector, so that none waits for the one before.
inline seen_weights look_at(slice<float const> x) {
  vec sum[2] = {}, highest[2] = {}, lowest[2] = {};
  auto const take = [&](auto k, vec v) { sum[k] += v, highest[k] = max(v, highest[k]), lowest[k] = min(v, lowest[k]); };
  std::int64_t j = 0;
  for (; j + 2 * lanes <= x.size; j += 2 * lanes) unroll<2>([&](auto k) { take(k, load(x.data + j + k * lanes)); });
  for (; j < x.size; j += lanes) take(0, load_some(x.data + j, x.size - j));
  seen_weights out{0, true};
  for (int i = 0; i < lanes; ++i)
    for (int k = 0; k < 2; ++k)
      out.sum += static_cast<double>(sum[k][i]), out.sound &= highest[k][i] <= 1.001f && lowest[k][i] >= 0.0f;
  return out;
}

enum class row_fault : std::uint8_t { none, weight, sum };
/// The row's weights lie in [0, 1] and add up to what the engine says. What is not a number is found by its score.
template <class Entry>
row_fault fault_of_row(softmax_reader<Entry> const& reader, attention_rows const& a, std::int32_t w,
                       slice<float const> x) {
  auto const [sum, sound] = look_at(x);
  if (!sound) return row_fault::weight;
  bool const is_wrong = sum > 1 + softmax_tolerance || (a.sum == row_sum::one && sum < 1 - softmax_tolerance);
  return is_wrong && !reader.sees_none(w) ? row_fault::sum : row_fault::none;
}

/// Says what is wrong with the first row that is not sound.
template <class Entry>
void violate_row(softmax_reader<Entry> const& reader, attention_rows const& a, row const& in, std::int32_t G) {
  for (row_fault const what : {row_fault::weight, row_fault::sum})
    for (std::int32_t i = 0; i < G * reader.rows(); ++i) {
      std::int32_t const w = i % reader.rows(), hq = in.head * G + i / reader.rows();
      slice<float const> const x = reader.read(w, hq);
      if (fault_of_row(reader, a, w, x) != what) continue;
      if (what == row_fault::weight) messages::softmax_weight(in.sequence, in.head);
      messages::softmax_sum(in.sequence, in.head, hq, reader.number(w), look_at(x).sum);
    }
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
