// SPDX-License-Identifier: Apache-2.0
// Window scores and column sums on a device from softmax rows that the engine provides.
#pragma once

#include <limits>

#include <kvevict/core/attention_rows.hpp>
#include <kvevict/cuda/attention/weights.hpp>
#include <kvevict/cuda/context/row_grid.hpp>
#include <kvevict/cuda/scores/pool.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

void has_kernel(kernels::window_scores_tag, device&);
void has_kernel(kernels::window_weights_tag, device&);
void has_kernel(kernels::column_sums_tag, device&);

/// A call over softmax rows: no keys, no LSE.
struct weights_call {
  watched watch;
  attention_rows a;
  window_options o;
  score_rows out;
  std::int32_t group, most_rows;  // G, and the most window rows of a sequence
  float* gains;                   // (B·H, most_rows), or null
  double* norms;                  // (B·H, G, most_rows) Σ a^gain of every row, or null without step gain

  KVEVICT_DEVICE attention_rows const& handed() const { return a; }
  KVEVICT_DEVICE window_rows window_of(row const& it) const {
    return newest_rows(a, it.sequence, it.tokens, most_rows, visibility::causal, out.positions != nullptr);
  }
  /// Of window row w of query head g.
  KVEVICT_DEVICE float const* weights(row const& it, window_rows const& in, std::int32_t g, std::int32_t w) const {
    return a.weights_of(it.sequence) + (in.first + w) * a.token_stride + (it.head * group + g) * a.head_stride;
  }
};

/// Σ_n a^gain of every window row, in double; a warp per row of weights.
///
/// Shapes   grid (4 rows of weights) → norms (B·H, G, most_rows).
struct norms_kernel {
  static constexpr int max_threads = 128;
  weights_call c;

  KVEVICT_DEVICE void operator()(thread& t) const {
    std::int64_t const at = std::int64_t{t.block().x} * 4 + t.warp(), r = at / (c.group * c.most_rows),
                       i = at % (c.group * c.most_rows);
    if (r >= c.out.count() || c.watch.stopped(t) || !c.out.rows[r].active) return;
    row const& it = c.out.rows[r];
    window_rows const in = c.window_of(it);
    auto const g = static_cast<std::int32_t>(i / c.most_rows), w = static_cast<std::int32_t>(i % c.most_rows);
    if (w >= in.count) return;
    float const* const x = c.weights(it, in, g, w);
    float const gain = c.gains[r * c.most_rows + w];
    double sum = 0;
    for (std::int64_t j = t.lane(); j < in.sees(w); j += warp_size) sum += static_cast<double>(::powf(x[j], gain));
    for (std::uint32_t d = 1; d < warp_size; d *= 2) sum += shuffle_xor(t, sum, d);
    if (t.lane() == 0) c.norms[at] = sum;
  }
};

/// One thread per token: its column of weights, head by head, row by row; added up, or each in the row's plane. Reads
/// are coalesced over tokens.
///
/// Shapes   grid (row, 256 tokens) → out (B·H, N), or (W, B·H, N).
struct sum_weights_kernel {
  static constexpr int max_threads = 256;
  weights_call c;
  bool apart;
  std::uint32_t chunks;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (c.watch.stopped(t)) return;
    std::int64_t r, j = token_of(t, c.out, chunks, r);
    if (j < 0) return;
    row const& it = c.out.rows[r];
    window_rows const in = c.window_of(it);
    for (std::int32_t w = 0; apart && w < in.count; ++w) {
      float const x = multiply(reduced(t, it, in, r, j, w, w + 1), share(1));
      put_weight(t, c.watch, c.out, r, w, j, x);
    }
    if (!apart) c.out.values[c.out.begin[r] + j] = reduced(t, it, in, r, j, 0, in.count) * share(in.count);
  }

 private:
  KVEVICT_DEVICE float share(std::int32_t rows) const {
    return (c.o.reduce == row_reduce::mean ? 1.0f / static_cast<float>(std::max(rows, 1)) : 1.0f) *
           over_heads(c.o.group, c.group);
  }
  struct bounds {
    float smallest, largest;
  };
  /// Window rows [first, last), added up and reduced over the group.
  KVEVICT_DEVICE float reduced(thread& t, row const& it, window_rows const& in, std::int64_t r, std::int64_t j,
                               std::int32_t first, std::int32_t last) const {
    float result = 0;
    bounds seen{0, 0};
    for (std::int32_t g = 0; g < c.group; ++g)
      result = with_head(c.o.group, g, result, column(it, in, r, g, j, first, last, seen));
    if (seen.largest > 1.001f || seen.smallest < 0)
      c.watch.refuse(t, fault::softmax_weight, it.sequence, it.head, 0, 0, j);
    return result;
  }
  KVEVICT_DEVICE float column(row const& it, window_rows const& in, std::int64_t r, std::int32_t g, std::int64_t j,
                              std::int32_t first, std::int32_t last, bounds& seen) const {
    double sum = 0;
    for (std::int32_t w = first; w < last; ++w) {
      if (j >= in.sees(w)) continue;
      float const x = c.weights(it, in, g, w)[j], gain = c.gains == nullptr ? 1.0f : c.gains[r * c.most_rows + w];
      seen = {fminf(seen.smallest, x), fmaxf(seen.largest, x)};
      sum += gain == 1.0f ? static_cast<double>(x)
                          : static_cast<double>(::powf(x, gain)) / c.norms[(r * c.group + g) * c.most_rows + w];
    }
    return static_cast<float>(sum);
  }
};

inline void sum_weights(device& ctx, attention_rows const& a, window_options const& o, score_rows const& out,
                        reading what) {
  expect_window_rows(o);
  KVEVICT_EXPECTS(o.pool_before_group.width == 1,
                  "window_scores: pool_before_group needs queries; softmax rows are reduced first");
  KVEVICT_EXPECTS(out.positions == nullptr || o.rows == 1,
                  "window_scores: the rows are scattered; only one newest row can be read");
  if (out.count() == 0) return;
  expect_most_rows(a.most_rows);
  frame scratch(ctx.scratch());
  weights_call c{ctx.watch(out.verb()),
                 a,
                 o,
                 out,
                 a.heads / out.heads,
                 std::max(1, std::min(o.rows, a.most_rows)),
                 nullptr,
                 nullptr};
  bool const gained = o.weights == weighting::step_gain;
  std::int64_t const rows = out.count() * c.group * c.most_rows;
  if (gained) c.gains = scratch.allocate<float>(out.count() * c.most_rows), c.norms = scratch.allocate<double>(rows);
  check_window(ctx, c, what);
  if (gained) ctx.launch({blocks_for(rows, 4)}, {128}, 0, norms_kernel{c});
  std::uint32_t const chunks = blocks_for(out.most_tokens, 256);
  ctx.launch({static_cast<std::uint32_t>(out.count()) * chunks}, {256}, 0,
             sum_weights_kernel{c, what == reading::single_rows || what == reading::single_new_rows, chunks});
}

/// The host's formulas (kernels/attention_rows.hpp); one read of the weights, two with step gain. Errors
/// fault::softmax_rows, fault::softmax_weight; of single rows fault::not_finite.
template <class Entry>
void kernel(kernels::window_scores_tag, device& ctx, layer_view<Entry> const&, attention_rows const& a,
            window_options const& o, score_rows const& out) {
  sum_weights(ctx, a, o, out, reading_of(out, reading::window));
  kernels::pool(ctx, o.pool, out);
}
template <class Entry>
void kernel(kernels::window_weights_tag, device& ctx, layer_view<Entry> const&, attention_rows const& a,
            window_options o, score_rows const& out) {
  o.reduce = row_reduce::sum;
  expect_single_rows(o);
  sum_weights(ctx, a, o, out, reading_of(out, reading::single_rows));
}
template <class Entry>
void kernel(kernels::column_sums_tag, device& ctx, layer_view<Entry> const&, attention_rows const& a, group_reduce how,
            score_rows const& out) {
  sum_weights(ctx, a, window_options{std::numeric_limits<std::int32_t>::max(), row_reduce::sum, how}, out,
              reading::all_tokens);
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
