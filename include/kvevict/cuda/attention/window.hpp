// SPDX-License-Identifier: Apache-2.0
// What the attention kernels work on: which query rows each KV head reads, what they see, and how logits become
// weights.
#pragma once

#include <cmath>

#include <kvevict/core/queries.hpp>
#include <kvevict/cuda/evidence/rows.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

/// The query rows of one row of scores: `rows` newest ones (without the skipped), of which row w sees tokens [0,
/// first_sees + w·step).
struct window {
  std::int32_t rows;
  std::int64_t first_query;  // in the batch
  std::int32_t first_token;  // where row 0 is in the cache
  std::int32_t first_sees, step;

  KVEVICT_DEVICE std::int32_t sees(std::int32_t w) const { return first_sees + w * step; }
};

/// The window rows of one query head, with all that does not depend on the row worked out once.
struct head_rows {
  std::byte const *queries, *lse;
  std::int32_t step, lse_step;  // bytes from row to row
  float to_base_two, factor;
  float const* gains;  // of each row, or null

  KVEVICT_DEVICE std::byte const* query(std::int32_t w) const { return queries + std::int64_t{w} * step; }
  KVEVICT_DEVICE float lse_of(std::int32_t w) const {
    return *reinterpret_cast<float const*>(lse + std::int64_t{w} * lse_step) * to_base_two;
  }
  /// Base-2 logits are slope·product of what attention_call::capped has left of the products: no branch for an element.
  KVEVICT_DEVICE float slope_of(std::int32_t w) const { return gains == nullptr ? factor : factor * gains[w]; }
};

/// A call of window_scores. Weights are 2^(z − lse) with z in base 2.
template <class Entry> struct attention_call {
  watched watch;
  layer_view<Entry> view;
  component keys;
  query_rows q;
  window_options o;
  score_rows out;
  std::int32_t group, most_rows;  // G, and the most window rows of a sequence
  float factor, cap;              // z = factor·(q·k), or cap·tanh(factor·(q·k)); times the gain
  float* gains;                   // (B·H, most_rows), or null
  float* lse;                     // (B·H, G·most_rows) base 2, row g·rows + w; or null: the engine's

  KVEVICT_DEVICE window window_of(row const& it) const {
    std::int32_t const given = q.rows(it.sequence) - o.skip;
    std::int32_t const end = o.sees == visibility::all ? given : std::min(given, it.tokens - o.skip);
    bool const causal = o.sees == visibility::causal && out.positions == nullptr;
    window w{};
    w.rows = std::max(0, std::min(most_rows, end));
    w.first_query = q.row_begin[it.sequence + 1] - o.skip - w.rows;
    w.first_token = it.tokens - o.skip - w.rows;
    w.first_sees = causal ? w.first_token + 1 : it.tokens, w.step = causal ? 1 : 0;
    return w;
  }
  /// The rows that are handed in suffice; `all_tokens`: one of every token.
  KVEVICT_DEVICE void expect_rows(thread& t, row const& it, bool all_tokens) const {
    std::int64_t const given = q.rows(it.sequence),
                       needed =
                           all_tokens ? it.tokens : std::min<std::int64_t>(std::int64_t{o.rows} + o.skip, it.tokens);
    if (given < needed || (all_tokens && given != needed) || given > q.most_rows)
      watch.refuse(t, fault::query_rows, it.sequence, it.head, given, needed);
  }
  /// Query head g of row r of scores.
  KVEVICT_DEVICE head_rows head_of(window const& in, row const& it, std::int64_t r, std::int32_t g) const {
    std::int64_t const head = std::int64_t{it.head} * group + g;
    bool const own = lse != nullptr;
    head_rows h{};
    h.queries = static_cast<std::byte const*>(q.data) +
                (in.first_query * q.token_stride + head * q.head_stride) * size_of(q.type);
    h.step = static_cast<std::int32_t>(q.token_stride * size_of(q.type));
    float const* const first = own ? lse + (r * group * most_rows + g * in.rows)
                                   : q.lse + (in.first_query * q.lse_token_stride + head * q.lse_head_stride);
    h.lse = reinterpret_cast<std::byte const*>(first);
    h.lse_step = static_cast<std::int32_t>((own ? 1 : q.lse_token_stride) * 4);
    h.to_base_two = own || q.base == log_base::two ? 1.0f : 1.44269504088896341f;
    h.factor = cap == 0 ? factor : 1.0f;
    h.gains = gains == nullptr ? nullptr : gains + r * most_rows;
    return h;
  }
  template <int M, int N> KVEVICT_DEVICE void capped(accumulator (&z)[M][N]) const {
    if (cap == 0) return;
    KVEVICT_UNROLL
    for (int k = 0; k < M * N * 4; ++k)
      z[k / 4 / N][k / 4 % N].values[k % 4] = cap * ::tanhf(z[k / 4 / N][k / 4 % N].values[k % 4] * factor);
  }
};

/// What a device sizes its grids and scratch by.
inline void expect_most_rows(std::int32_t most_rows) {
  KVEVICT_EXPECTS(most_rows > 0, "evidence: most_rows is ", most_rows,
                  "; a device cannot look row_begin up, say how many rows a sequence hands in at most");
}

/// One thread per row of scores.
///
/// Shapes   evidence of B sequences, rows (B·H) → nothing.
template <class Entry> struct check_window_kernel {
  static constexpr int max_threads = 128;
  attention_call<Entry> c;
  bool all_tokens;

  KVEVICT_DEVICE void operator()(thread& t) const {
    std::int64_t const r = std::int64_t{t.block().x} * t.block_size().x + t.rank();
    if (r < c.out.count() && !c.watch.stopped(t) && c.out.rows[r].active) c.expect_rows(t, c.out.rows[r], all_tokens);
  }
};

/// √(2 ln(i/k)), at least min_gain: AhaKV's gain of every window row, in double as on the host. One thread per (row,
/// window row).
///
/// Shapes   positions (T) → gains (B·H, most_rows).
template <class Entry> struct gains_kernel {
  static constexpr int max_threads = 128;
  attention_call<Entry> c;

  KVEVICT_DEVICE void operator()(thread& t) const {
    std::int64_t const at = std::int64_t{t.block().x} * t.block_size().x + t.rank(), r = at / c.most_rows;
    auto const w = static_cast<std::int32_t>(at % c.most_rows);
    if (r >= c.out.count() || c.watch.stopped(t) || !c.out.rows[r].active) return;
    row const& it = c.out.rows[r];
    window const in = c.window_of(it);
    if (w >= in.rows) return;
    std::int64_t const i = (c.q.positions == nullptr ? in.first_token + w : c.q.positions[in.first_query + w]) + 1;
    float gain = c.o.min_gain;
    if (i > it.budget && it.budget > 0)
      gain =
          fmaxf(gain, static_cast<float>(::sqrt(2.0 * ::log(static_cast<double>(i) / static_cast<double>(it.budget)))));
    c.gains[at] = gain;
  }
};

}  // namespace kvevict::inline KVEVICT_ABI::cuda
