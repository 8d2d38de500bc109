// SPDX-License-Identifier: Apache-2.0
// What the attention kernels work on: which query rows each KV head reads, what they see, and how logits become
// weights.
#pragma once

#include <cmath>

#include <kvevict/cache/row_sights.hpp>
#include <kvevict/core/queries.hpp>
#include <kvevict/core/step_gain.hpp>
#include <kvevict/core/window.hpp>
#include <kvevict/cuda/evidence/rows.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

/// The window rows of one query head, with all that does not depend on the row worked out once.
struct head_rows {
  std::byte const *queries, *lse;
  std::int32_t step, lse_step;  // bytes from row to row
  float to_base_two, factor;
  float const* gains;  // of each row, or null

  KVEVICT_DEVICE std::byte const* query(std::int32_t w) const { return queries + std::int64_t{w} * step; }
  /// −∞ says that the row sees nothing: its weights are 0.
  KVEVICT_DEVICE float lse_of(std::int32_t w) const {
    float const x = *reinterpret_cast<float const*>(lse + std::int64_t{w} * lse_step) * to_base_two;
    return x < -3.4e38f ? -x : x;
  }
  /// Base-2 logits are slope·product of what attention_call::capped has left of the products: no branch for an element.
  KVEVICT_DEVICE float slope_of(std::int32_t w) const { return gains == nullptr ? factor : factor * gains[w]; }
};

/// What rows see where that does not follow from their number: in memory of the call, or null.
struct sight_memory {
  sight* each = nullptr;    // (B·H, most_rows)
  sight* always = nullptr;  // (B·H)

  static sight_memory of(frame& scratch, std::int64_t rows, std::int64_t most_rows, bool needed) {
    if (!needed) return {};
    sight* const each = scratch.allocate<sight>(rows * most_rows);
    return {each, scratch.allocate<sight>(rows)};
  }
  KVEVICT_DEVICE window_rows with(window_rows in, std::int64_t r, std::int32_t most_rows) const {
    if (each != nullptr) in.each = each + r * most_rows, in.always = always[r];
    return in;
  }
};
/// The orders of a row's tokens: their slots in ascending rows.
struct token_orders {
  std::int32_t const* positions;  // of the row, or null
  std::int32_t tokens;

  /// Row w sees that token.
  KVEVICT_DEVICE bool sees(window_rows const& in, std::int32_t w, std::int32_t token) const {
    return token < tokens && in.sees(w, positions == nullptr ? token : positions[token]);
  }
  /// Rows w to `last` see all of `count` tokens from `first` on.
  KVEVICT_DEVICE bool see_all(window_rows const& in, std::int32_t w, std::int32_t last, std::int32_t first,
                              std::int32_t count) const {
    return positions == nullptr && first + count <= in.end(w) && (in.each == nullptr || first >= in.of(last).from);
  }
};
KVEVICT_DEVICE inline token_orders orders_of(score_rows const& out, row const& it, std::int64_t r) {
  return {out.positions_of(r), it.tokens};
}

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
  sight_memory sights;
  std::uint64_t* sums = nullptr;  // (B·H, G·most_rows) of each row's weights by the engine's LSE, see weight_sum

  KVEVICT_DEVICE query_rows const& handed() const { return q; }
  KVEVICT_DEVICE window_rows window_of(row const& it) const {
    return sights.with(newest_rows(q, it.sequence, it.tokens, most_rows, o.place, out.positions != nullptr),
                       out.index_of(it), most_rows);
  }
  /// Query head g of row r of scores.
  KVEVICT_DEVICE head_rows head_of(window_rows const& in, row const& it, std::int64_t r, std::int32_t g) const {
    std::int64_t const head = std::int64_t{it.head} * group + g;
    bool const own = lse != nullptr;
    head_rows h{};
    h.queries = q.data_of(it.sequence) + (in.first * q.token_stride + head * q.head_stride) * size_of(q.type);
    h.step = static_cast<std::int32_t>(q.token_stride * size_of(q.type));
    float const* const first = own ? lse + (r * group * most_rows + g * in.count)
                                   : q.lse_of(it.sequence) + (in.first * q.lse_token_stride + head * q.lse_head_stride);
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

/// How many rows a call reads of every sequence: a window, summed or each by itself, or all of it. In rows of observe()
/// the window is an upper bound: it reads as many as there are.
enum class reading : std::uint8_t { window, single_rows, all_tokens, new_rows, single_new_rows };

inline reading reading_of(score_rows const& out, reading otherwise) {
  if (!out.observed) return otherwise;
  return otherwise == reading::window ? reading::new_rows : reading::single_new_rows;
}

/// The rows that are provided suffice.
template <class Call> KVEVICT_DEVICE void expect_rows(thread& t, Call const& c, row const& it, reading what) {
  constexpr bool softmax = std::is_same_v<std::decay_t<decltype(c.handed())>, attention_rows>;
  std::int32_t const given = c.handed().rows(it.sequence),
                     needed = what == reading::new_rows || what == reading::single_new_rows
                                  ? 1
                                  : rows_needed(c.o.rows, it.tokens);
  if (given > c.handed().most_rows)
    c.watch.refuse(t, fault::most_rows, it.sequence, it.head, given, c.handed().most_rows);
  if (what == reading::all_tokens) {
    if (given != it.tokens)
      c.watch.refuse(t, softmax ? fault::all_softmax_rows : fault::all_queries, it.sequence, it.head, given, it.tokens);
    return;
  }
  if (what == reading::single_rows && it.tokens < c.o.rows)
    c.watch.refuse(t, fault::tokens, it.sequence, it.head, c.o.rows, it.tokens);
  if (given < needed)
    c.watch.refuse(t, softmax ? fault::softmax_rows : fault::queries, it.sequence, it.head, given, needed);
}

/// The same for every row of scores; the gain of each window row, where there are gains; what it sees, where that is
/// kept, and that this can be told; and sums of weights, zero.
///
/// Shapes   positions (T) → c.gains, c.sights.each (B·H, most_rows), c.sights.always (B·H), c.sums (B·H, G·most_rows).
template <class Call> struct check_window_kernel {
  static constexpr int max_threads = 128;
  Call c;
  reading what;
  std::int32_t per_row;  // threads
  bool counts_only;      // how many rows there are

  KVEVICT_DEVICE void operator()(thread& t) const {
    std::int64_t const at = std::int64_t{t.block().x} * t.block_size().x + t.linear_index(), r = at / per_row;
    if (r >= c.out.count() || c.watch.stopped(t) || !c.out.rows[r].active) return;
    row const& it = c.out.rows[r];
    auto const w = static_cast<std::int32_t>(at % per_row);
    if (w == 0) expect_rows(t, c, it, what);
    window_rows const in =
        newest_rows(c.handed(), it.sequence, it.tokens, c.most_rows, c.o.place, c.out.positions != nullptr);
    if (counts_only || w >= in.count) return;
    auto const sights = sights_of(c.view, c.handed(), it.sequence, it.head, it.tokens, in, c.o.place);
    std::int64_t const position = sights.position(w);
    if (sight_fault const why = sights.fault_of(w); why != sight_fault::none)
      c.watch.refuse(t, fault::row_sight, it.sequence, it.head, position, static_cast<std::int64_t>(why),
                     in.first + w - c.handed().first_row(it.sequence));
    if (c.gains != nullptr)
      c.gains[at] = step_gain((position < 0 ? it.tokens - 1 : position) + 1, it.budget, c.o.min_gain);
    if (c.sights.each != nullptr) c.sights.each[at] = sights.of(w);
    if (c.sights.each != nullptr && w == 0) c.sights.always[r] = sights.always();
    if constexpr (requires { c.sums; })
      for (std::int32_t g = 0; c.sums != nullptr && g < c.group; ++g) c.sums[(r * c.group + g) * c.most_rows + w] = 0;
  }
};

/// Whether check_window_kernel has more to do than count rows.
template <class Call> bool looks_at_rows(Call const& c) {
  bool more = c.gains != nullptr || c.sights.each != nullptr || (c.handed().positions != nullptr && !c.out.observed);
  if constexpr (requires { c.sums; }) more = more || c.sums != nullptr;
  return more;
}
template <class Call> void check_window(device& ctx, Call const& c, reading what) {
  bool const more = looks_at_rows(c);
  std::int32_t const per_row = more ? c.most_rows : 1;
  ctx.launch({blocks_for(c.out.count() * per_row, 128)}, {128}, 0, check_window_kernel<Call>{c, what, per_row, !more});
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
