// SPDX-License-Identifier: Apache-2.0
// Window scores and column sums on a device from softmax rows that the engine provides.
#pragma once

#include <limits>

#include <kvevict/core/attention_rows.hpp>
#include <kvevict/cuda/attention/weight_sums.hpp>
#include <kvevict/cuda/attention/weights.hpp>
#include <kvevict/cuda/context/row_grid.hpp>
#include <kvevict/cuda/scores/pool.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

void has_kernel(kernels::window_scores_tag, device&);
void has_kernel(kernels::window_weights_tag, device&);
void has_kernel(kernels::column_sums_tag, device&);

/// A call over softmax rows: no keys, no LSE.
template <class Entry> struct weights_call {
  watched watch;
  layer_view<Entry> view;
  attention_rows a;
  window_options o;
  score_rows out;
  std::int32_t group, most_rows;  // G, and the most window rows of a sequence
  float* gains;                   // (B·H, most_rows), or null
  double* norms;                  // (B·H, G, most_rows) Σ a^gain of every row, or null without step gain
  sight_memory sights;

  KVEVICT_DEVICE attention_rows const& handed() const { return a; }
  KVEVICT_DEVICE window_rows window_of(row const& it) const {
    return sights.with(newest_rows(a, it.sequence, it.tokens, most_rows, o.place, out.positions != nullptr),
                       out.index_of(it), most_rows);
  }
  /// Of window row w of query head g.
  KVEVICT_DEVICE float const* weights(row const& it, window_rows const& in, std::int32_t g, std::int32_t w) const {
    return a.weights_of(it.sequence) + (in.first + w) * a.token_stride + (it.head * group + g) * a.head_stride;
  }
  /// Where token j's weight stands in a row.
  KVEVICT_DEVICE std::int64_t column_of(row const& it, std::int64_t j) const {
    if constexpr (page_table<Entry>::holds_pointers) {
      return j;
    } else {
      if (a.by == columns::by_slot) return j;
      std::int64_t const size = view.pages.page_size, page = j / size;
      return static_cast<std::int64_t>(view.pages.entry(it.sequence, it.head, page)) * size + j % size;
    }
  }
};

/// Every row of weights: in [0, 1], of a sum of one, all of its columns there; and its Σ_n a^gain, in double. A warp
/// per row.
///
/// Shapes   grid (4 rows of weights) → norms (B·H, G, most_rows).
template <class Entry> struct check_weights_kernel {
  static constexpr int max_threads = 128;
  weights_call<Entry> c;

  KVEVICT_DEVICE void operator()(thread& t) const {
    std::int64_t const at = std::int64_t{t.block().x} * 4 + t.warp(), r = at / (c.group * c.most_rows),
                       i = at % (c.group * c.most_rows);
    if (r >= c.out.count() || c.watch.stopped(t) || !c.out.rows[r].active) return;
    row const& it = c.out.rows[r];
    window_rows const in = c.window_of(it);
    auto const g = static_cast<std::int32_t>(i / c.most_rows), w = static_cast<std::int32_t>(i % c.most_rows);
    if (w >= in.count) return;
    float const* const x = c.weights(it, in, g, w);
    float const gain = c.gains == nullptr ? 1.0f : c.gains[r * c.most_rows + w];
    token_orders const orders = orders_of(c.out, it, r);
    double sum = 0, whole = 0;
    std::int32_t seen = 0;
    for (std::int32_t j = static_cast<std::int32_t>(t.lane()); j < it.tokens; j += warp_size) {
      std::int64_t const column = c.column_of(it, j);
      if (c.a.by == columns::by_entry && column >= c.a.slots) {
        c.watch.refuse(t, fault::softmax_slots, it.sequence, it.head, column + 1, c.a.slots);
        continue;
      }
      if (!orders.sees(in, w, j)) continue;
      float const y = x[column];
      if (y > 1.001f || y < 0) c.watch.refuse(t, fault::softmax_weight, it.sequence, it.head);
      whole += static_cast<double>(y), ++seen;
      if (c.norms != nullptr) sum += static_cast<double>(::powf(y, gain));
    }
    for (std::uint32_t d = 1; d < warp_size; d *= 2)
      sum += shuffle_xor(t, sum, d), whole += shuffle_xor(t, whole, d), seen += shuffle_xor(t, seen, d);
    if (t.lane() != 0) return;
    if (c.norms != nullptr) c.norms[at] = sum;
    if (seen != 0 && (whole > 1 + softmax_tolerance || (c.a.sum == row_sum::one && whole < 1 - softmax_tolerance)))
      c.watch.refuse(t, fault::softmax_sum, it.sequence, it.head, bits_of(static_cast<float>(whole)), 0,
                     g * in.count + w, it.head * c.group + g,
                     static_cast<std::int32_t>(in.first + w - c.a.first_row(it.sequence)));
  }
};

/// One thread per token: its column of weights, head by head, row by row; added up, or each in the row's plane. Reads
/// are coalesced over tokens.
///
/// Shapes   grid (row, 256 tokens) → out (B·H, N), or (W, B·H, N).
template <class Entry> struct sum_weights_kernel {
  static constexpr int max_threads = 256;
  weights_call<Entry> c;
  bool apart;
  std::uint32_t chunks;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (c.watch.stopped(t)) return;
    std::int64_t r, j = token_of(t, c.out, chunks, r);
    if (j < 0) return;
    row const& it = c.out.rows[r];
    window_rows const in = c.window_of(it);
    for (std::int32_t w = 0; apart && w < in.count; ++w) {
      float const x = multiply(reduced(it, in, r, j, w, w + 1), share(1));
      put_weight(t, c.watch, c.out, r, w, j, x);
    }
    if (!apart) c.out.values[c.out.begin[r] + j] = reduced(it, in, r, j, 0, in.count) * share(in.count);
  }

 private:
  KVEVICT_DEVICE float share(std::int32_t rows) const {
    return (c.o.reduce == row_reduce::mean ? 1.0f / static_cast<float>(std::max(rows, 1)) : 1.0f) *
           over_heads(c.o.group, c.group);
  }
  /// Window rows [first, last), added up and reduced over the group.
  KVEVICT_DEVICE float reduced(row const& it, window_rows const& in, std::int64_t r, std::int64_t j, std::int32_t first,
                               std::int32_t last) const {
    float result = 0;
    for (std::int32_t g = 0; g < c.group; ++g)
      result = with_head(c.o.group, g, result, column(it, in, r, g, j, first, last));
    return result;
  }
  KVEVICT_DEVICE float column(row const& it, window_rows const& in, std::int64_t r, std::int32_t g, std::int64_t j,
                              std::int32_t first, std::int32_t last) const {
    token_orders const orders = orders_of(c.out, it, r);
    std::int64_t const at = c.column_of(it, j);
    double sum = 0;
    for (std::int32_t w = first; w < last; ++w) {
      if (!orders.sees(in, w, static_cast<std::int32_t>(j))) continue;
      float const x = c.weights(it, in, g, w)[at], gain = c.gains == nullptr ? 1.0f : c.gains[r * c.most_rows + w];
      sum += gain == 1.0f ? static_cast<double>(x)
                          : static_cast<double>(::powf(x, gain)) / c.norms[(r * c.group + g) * c.most_rows + w];
    }
    return static_cast<float>(sum);
  }
};

/// f(weights_call) of rows that are checked. `verb`: whose call it is.
template <class Entry, class F>
void with_softmax_rows(char const* verb, device& ctx, frame& scratch, layer_view<Entry> const& view,
                       attention_rows const& a, window_options const& o, score_rows const& out, reading what, F&& f) {
  expect_window_rows(o), expect_visibility(a.sees);
  KVEVICT_EXPECTS(o.pool_before_group.width == 1, verb,
                  ": pool_before_group needs queries; softmax rows are reduced first");
  expect_one_row(verb, a, o, out);
  KVEVICT_EXPECTS(a.by == columns::by_slot || !page_table<Entry>::holds_pointers,
                  "evidence: columns::by_entry needs a table of page ids, and this one holds addresses; give the "
                  "weights by slot");
  if (out.count() == 0) return;
  expect_most_rows(a.most_rows);
  std::int32_t const most_rows = std::max(1, std::min(o.rows, a.most_rows));
  weights_call<Entry> c{ctx.watch(out.verb()),
                        view,
                        a,
                        o,
                        out,
                        a.heads / out.heads,
                        most_rows,
                        nullptr,
                        nullptr,
                        sight_memory::of(scratch, out.count(), most_rows, !sees_by_index(view, a))};
  bool const gained = o.weights == weighting::step_gain;
  std::int64_t const rows = out.count() * c.group * c.most_rows;
  if (gained) c.gains = scratch.allocate<float>(out.count() * c.most_rows), c.norms = scratch.allocate<double>(rows);
  check_window(ctx, c, what);
  ctx.launch({blocks_for(rows, 4)}, {128}, 0, check_weights_kernel<Entry>{c});
  f(c);
}

template <class Entry>
void sum_weights(device& ctx, layer_view<Entry> const& view, attention_rows const& a, window_options const& o,
                 score_rows const& out, reading what) {
  frame scratch(ctx.scratch());
  bool const apart = what == reading::single_rows || what == reading::single_new_rows;
  with_softmax_rows("window_scores", ctx, scratch, view, a, o, out, what, [&](weights_call<Entry> const& c) {
    std::uint32_t const chunks = blocks_for(out.most_tokens, 256);
    ctx.launch({static_cast<std::uint32_t>(out.count()) * chunks}, {256}, 0,
               sum_weights_kernel<Entry>{c, apart, chunks});
  });
}

/// The host's formulas (kernels/attention_rows.hpp); two reads of the weights, one to check their rows. Errors
/// fault::softmax_rows, fault::softmax_weight, fault::softmax_sum; of single rows fault::not_finite.
template <class Entry>
void kernel(kernels::window_scores_tag, device& ctx, layer_view<Entry> const& view, attention_rows const& a,
            window_options const& o, score_rows const& out) {
  sum_weights(ctx, view, a, o, out, reading_of(out, reading::window));
  kernels::pool(ctx, o.pool, out);
}
template <class Entry>
void kernel(kernels::window_weights_tag, device& ctx, layer_view<Entry> const& view, attention_rows const& a,
            window_options o, score_rows const& out) {
  o.reduce = row_reduce::sum;
  expect_single_rows(o);
  sum_weights(ctx, view, a, o, out, reading_of(out, reading::single_rows));
}
template <class Entry>
void kernel(kernels::column_sums_tag, device& ctx, layer_view<Entry> const& view, attention_rows const& a,
            group_reduce how, score_rows const& out) {
  sum_weights(ctx, view, a, window_options{std::numeric_limits<std::int32_t>::max(), row_reduce::sum, how}, out,
              reading::all_tokens);
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
