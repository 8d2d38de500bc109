// SPDX-License-Identifier: Apache-2.0
// Window scores and column sums on a device from softmax rows that the engine hands in.
#pragma once

#include <limits>

#include <kvevict/core/attention_rows.hpp>
#include <kvevict/cuda/attention/window.hpp>
#include <kvevict/cuda/context/row_grid.hpp>
#include <kvevict/cuda/scores/pool.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

void has_kernel(kernels::window_scores_tag, device&);
void has_kernel(kernels::column_sums_tag, device&);

/// A call over softmax rows: no keys, no LSE.
struct weights_call {
  watched watch;
  attention_rows a;
  window_options o;
  score_rows out;
  std::int32_t group;
  double* norms;  // (B·H, G, W) Σ a^gain of every row, or null without step gain
  std::int32_t most_rows;

  struct row_view {
    std::int32_t rows, first;  // window rows, and the first of those that are handed in
    std::int64_t first_token;
  };
  KVEVICT_DEVICE row_view window_of(row const& it) const {
    std::int32_t const have = a.rows(it.sequence), end = have - o.skip;
    std::int32_t const rows = std::max(0, std::min(std::min(o.rows, end), it.tokens));
    return {rows, end - rows, std::int64_t{it.tokens} - have + end - rows};
  }
  /// Window row w of query head g sees `seen` weights, sharpened by `gain`.
  KVEVICT_DEVICE float const* weights(row const& it, row_view const& v, std::int32_t g, std::int32_t w) const {
    std::int64_t const t = a.row_begin[it.sequence] + v.first + w;
    return a.weights + t * a.token_stride + (it.head * group + g) * a.head_stride;
  }
  KVEVICT_DEVICE std::int64_t seen(row const& it, row_view const& v, std::int32_t w) const {
    return out.positions != nullptr ? it.tokens : v.first_token + w + 1;
  }
  KVEVICT_DEVICE float gain(row const& it, row_view const& v, std::int32_t w) const {
    if (o.weights == weighting::softmax) return 1.0f;
    std::int64_t const i =
        (a.positions == nullptr ? v.first_token + w : a.positions[a.row_begin[it.sequence] + v.first + w]) + 1;
    if (i <= it.budget || it.budget <= 0) return o.min_gain;
    return fmaxf(o.min_gain,
                 static_cast<float>(::sqrt(2.0 * ::log(static_cast<double>(i) / static_cast<double>(it.budget)))));
  }
};

/// The rows that are handed in suffice; one thread per row of scores.
///
/// Shapes   evidence of B sequences, rows (B·H) → nothing.
struct check_weights_kernel {
  static constexpr int max_threads = 128;
  weights_call c;
  bool all_tokens;

  KVEVICT_DEVICE void operator()(thread& t) const {
    std::int64_t const r = std::int64_t{t.block().x} * t.block_size().x + t.rank();
    if (r >= c.out.count() || c.watch.stopped(t)) return;
    row const& it = c.out.rows[r];
    std::int64_t const given = c.a.rows(it.sequence),
                       needed = all_tokens ? it.tokens
                                           : std::min<std::int64_t>(std::int64_t{c.o.rows} + c.o.skip, it.tokens);
    if (it.active && (given < needed || (all_tokens && given != needed) || given > c.a.most_rows))
      c.watch.refuse(t, fault::query_rows, it.sequence, it.head, given, needed);
  }
};

/// Σ_n a^gain of every window row, in double; a warp per row of weights.
///
/// Shapes   weights (T,Hq,N) → norms (B·H, G, W).
struct norms_kernel {
  static constexpr int max_threads = 128;
  weights_call c;

  KVEVICT_DEVICE void operator()(thread& t) const {
    std::int64_t const at = std::int64_t{t.block().x} * 4 + t.warp(), r = at / (c.group * c.most_rows),
                       i = at % (c.group * c.most_rows);
    if (r >= c.out.count() || c.watch.stopped(t) || !c.out.rows[r].active) return;
    row const& it = c.out.rows[r];
    auto const v = c.window_of(it);
    auto const g = static_cast<std::int32_t>(i / c.most_rows), w = static_cast<std::int32_t>(i % c.most_rows);
    if (w >= v.rows) return;
    float const* const x = c.weights(it, v, g, w);
    float const gain = c.gain(it, v, w);
    double sum = 0;
    for (std::int64_t j = t.lane(); j < c.seen(it, v, w); j += warp_size)
      sum += static_cast<double>(::powf(x[j], gain));
    for (std::uint32_t d = 1; d < warp_size; d *= 2) sum += shuffle_xor(t, sum, d);
    if (t.lane() == 0) c.norms[at] = sum;
  }
};

/// One thread per token: its column of weights, head by head, row by row. Reads are coalesced over tokens.
///
/// Shapes   weights (T,Hq,N), norms (B·H, G, W) or none → scores (B·H, N).
struct sum_weights_kernel {
  static constexpr int max_threads = 256;
  weights_call c;
  std::uint32_t chunks;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (c.watch.stopped(t)) return;
    std::int64_t r, j = token_of(t, c.out, chunks, r);
    if (j < 0) return;
    row const& it = c.out.rows[r];
    auto const v = c.window_of(it);
    float result = 0, largest = 0, smallest = 0;
    for (std::int32_t g = 0; g < c.group; ++g) {
      float const x = column(it, v, r, g, j, largest, smallest);
      result = g == 0 ? x : c.o.group == group_reduce::max ? (x > result || x != x ? x : result) : result + x;
    }
    if (largest > 1.001f) c.watch.refuse(t, fault::weight_above_one, it.sequence, it.head, 0, 0, j);
    if (smallest < 0) c.watch.refuse(t, fault::weight_below_zero, it.sequence, it.head, 0, 0, j);
    float const share = (c.o.reduce == row_reduce::mean ? 1.0f / static_cast<float>(std::max(v.rows, 1)) : 1.0f) *
                        (c.o.group == group_reduce::mean ? 1.0f / static_cast<float>(c.group) : 1.0f);
    c.out.values[c.out.begin[r] + j] = result * share;
  }

 private:
  KVEVICT_DEVICE float column(row const& it, weights_call::row_view const& v, std::int64_t r, std::int32_t g,
                              std::int64_t j, float& largest, float& smallest) const {
    double sum = 0;
    for (std::int32_t w = 0; w < v.rows; ++w) {
      if (j >= c.seen(it, v, w)) continue;
      float const x = c.weights(it, v, g, w)[j], gain = c.norms == nullptr ? 1.0f : c.gain(it, v, w);
      largest = fmaxf(largest, x), smallest = fminf(smallest, x);
      sum += c.norms == nullptr || gain == 1.0f
                 ? static_cast<double>(x)
                 : static_cast<double>(::powf(x, gain)) / c.norms[(r * c.group + g) * c.most_rows + w];
    }
    return static_cast<float>(sum);
  }
};

inline void sum_weights(device& ctx, attention_rows const& a, window_options const& o, score_rows const& out,
                        bool all_tokens) {
  expect_window_rows(o);
  KVEVICT_EXPECTS(o.pool_before_group.width == 1,
                  "window_scores: pool_before_group needs queries; softmax rows are reduced first");
  KVEVICT_EXPECTS(out.positions == nullptr || o.rows == 1,
                  "window_scores: the rows are scattered; only one newest row can be read");
  if (out.count() == 0) return;
  expect_most_rows(a.most_rows);
  frame scratch(ctx.scratch());
  weights_call c{ctx.watch(), a, o, out, a.heads / out.heads, nullptr, std::min(o.rows, a.most_rows)};
  ctx.launch({blocks_for(out.count(), 128)}, {128}, 0, check_weights_kernel{c, all_tokens});
  if (o.weights == weighting::step_gain) {
    std::int64_t const rows = out.count() * c.group * c.most_rows;
    c.norms = scratch.take<double>(rows);
    ctx.launch({blocks_for(rows, 4)}, {128}, 0, norms_kernel{c});
  }
  std::uint32_t const chunks = blocks_for(out.most_tokens, 256);
  ctx.launch({static_cast<std::uint32_t>(out.count()) * chunks}, {256}, 0, sum_weights_kernel{c, chunks});
  kernels::pool(ctx, o.pool, out);
}

/// The host's formulas (kernels/attention_rows.hpp); one read of the weights, two with step gain. Errors
/// fault::query_rows, fault::weight_above_one.
template <class Entry>
void kernel(kernels::window_scores_tag, device& ctx, layer_view<Entry> const&, attention_rows const& a,
            window_options const& o, score_rows const& out) {
  sum_weights(ctx, a, o, out, false);
}
template <class Entry>
void kernel(kernels::column_sums_tag, device& ctx, layer_view<Entry> const&, attention_rows const& a, group_reduce how,
            score_rows const& out) {
  sum_weights(ctx, a, window_options{std::numeric_limits<std::int32_t>::max(), row_reduce::sum, how}, out, true);
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
