// SPDX-License-Identifier: Apache-2.0
// The log-sum-exp of every query row over the tokens it sees, where the engine gives none.
#pragma once

#include <limits>

#include <kvevict/core/multiply_add.hpp>
#include <kvevict/cuda/attention/key_rows.hpp>
#include <kvevict/cuda/attention/window.hpp>
#include <kvevict/cuda/shim/divisor.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

/// How the columns of a row of scores are shared out. Few query rows: in splits of a fixed width, else in one piece;
/// that goes by the rows that are there, so that no bit depends on how many may be, nor on how long a row may be.
struct lse_splits {
  static constexpr std::int32_t few = 1024, width = 1024, tile = 128;  // query rows, columns, query rows of a block
  std::uint32_t splits, blocks;                                        // of few query rows; of a row
  std::int64_t stride;                                                 // parts of a row

  lse_splits(std::int64_t most_rows, std::int64_t tokens)
      : splits(std::max(1u, blocks_for(tokens, width))),
        blocks(
            std::max(splits * blocks_for(std::min<std::int64_t>(most_rows, few), tile), blocks_for(most_rows, tile))),
        stride(std::max(splits * std::min<std::int64_t>(most_rows, few), most_rows)) {}

  KVEVICT_DEVICE static bool is_split(std::int32_t rows) { return rows <= few; }
};

/// A warp takes 32 query rows and one split of the columns; each lane keeps the maximum and the sum of its own columns,
/// in order. Grid: (row, 128 query rows, split). No barrier.
///
/// Shapes   queries (T,Hq,D), keys (B·H, N, D) → peaks, sums (B·H, splits, G·rows).
template <class Entry, class Product> struct lse_part_kernel {
  static constexpr int max_threads = 128;
  attention_call<Entry> c;
  Product product;
  divisor page_size;
  float *peaks, *sums;  // (B·H, parts of a row)
  lse_splits cut;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (c.watch.stopped(t)) return;
    std::uint32_t const at = t.block().x % cut.blocks;
    std::int64_t const r = t.block().x / cut.blocks;
    row const& it = c.out.rows[r];
    if (!it.active) return;
    window_rows const in = c.window_of(it);
    std::int32_t const total = in.count * c.group;
    bool const split = lse_splits::is_split(total);
    std::uint32_t const s = split ? at % cut.splits : 0, tile = split ? at / cut.splits : at;
    auto const first = static_cast<std::int32_t>((tile * 4 + t.warp()) * 32);
    if (first >= total) return;
    std::int32_t const last = std::min(first + 31, total - 1);
    std::int32_t const newest = first / in.count == last / in.count ? last % in.count : in.count - 1;  // sees most
    std::int64_t const begin = std::int64_t{s} * lse_splits::width,
                       last_of_split = split ? std::min<std::int64_t>(begin + lse_splits::width, it.tokens) : it.tokens,
                       seen = c.out.positions == nullptr ? in.end(newest) : it.tokens,
                       end = std::min<std::int64_t>(last_of_split, seen);
    part p[4] = {{-1e30f, 0}, {-1e30f, 0}, {-1e30f, 0}, {-1e30f, 0}};
    if (begin < end)
      scan(t, it, in, r, first, total, static_cast<std::int32_t>(begin), static_cast<std::int32_t>(end), p);
    KVEVICT_UNROLL
    for (int k = 0; k < 4; ++k) {  // row first + lane/4 + 8k: its four lanes in order
      for (std::uint32_t d = 1; d < 4; d *= 2)
        p[k] = merged(p[k], {shuffle_xor(t, p[k].peak, d), shuffle_xor(t, p[k].sum, d)});
      std::int32_t const i = first + static_cast<std::int32_t>(t.lane() / 4) + 8 * k;
      std::int64_t const to = r * cut.stride + std::int64_t{s} * total + i;
      if (t.lane() % 4 == 0 && i < total) peaks[to] = p[k].peak, sums[to] = p[k].sum;
    }
  }

  struct part {
    float peak, sum;
  };
  KVEVICT_DEVICE static part merged(part a, part b) {
    float const peak = fmaxf(a.peak, b.peak);
    return {peak, kvevict::multiply_add(a.sum, exp2(a.peak - peak), b.sum * exp2(b.peak - peak))};
  }

 private:
  static constexpr int tiles = 2;  // of 8 columns, taken at a time

  KVEVICT_DEVICE void scan(thread& t, row const& it, window_rows const& in, std::int64_t r, std::int32_t first,
                           std::int32_t total, std::int32_t begin, std::int32_t end, part (&p)[4]) const {
    typename Product::rows rows[2];
    float slope[4];
    token_orders const orders = orders_of(c.out, it, r);
    std::int32_t of[4];
    sight all = sight_up_to(it.tokens);  // that every row of the warp sees
    std::byte const* query[4];
    KVEVICT_UNROLL
    for (int k = 0; k < 4; ++k) {
      std::int32_t const i = std::min(first + static_cast<std::int32_t>(t.lane() / 4) + 8 * k, total - 1),
                         w = i % in.count;
      head_rows const q = c.head_of(in, it, r, i / in.count);
      query[k] = q.query(w), slope[k] = q.slope_of(w), of[k] = w;
      sight const seen = in.of(w);
      all = {std::max(all.from, seen.from), std::min(all.to, seen.to)};
    }
    for (std::uint32_t d = 4; d < warp_size; d *= 2)
      all = {std::max(all.from, shuffle_xor(t, all.from, d)), std::min(all.to, shuffle_xor(t, all.to, d))};
    if (orders.positions != nullptr) all.to = 0;
    KVEVICT_UNROLL
    for (int m = 0; m < 2; ++m) rows[m] = product.load_rows(t, query[2 * m], query[2 * m + 1]);
    key_rows<Entry, Product> const at(c.view, c.keys, it.sequence, it.head);
    typename Product::columns keys[tiles];
    load(t, at, begin, it.tokens - 1, keys);
    KVEVICT_KEEP_LOOP
    for (std::int32_t j = begin; j < end; j += tiles * 8) {
      accumulator z[2][tiles] = {};
      product.multiply(t, rows, keys, z);
      // arrive while weights are worked out: no compiler moves them behind the barrier
      load(t, at, j + tiles * 8, it.tokens - 1, keys);
      t.sync_warp();
      c.capped(z);
      KVEVICT_UNROLL
      for (int k = 0; k < 4; ++k) {
        float x[2 * tiles];
        KVEVICT_UNROLL
        for (int i = 0; i < 2 * tiles; ++i) x[i] = z[k / 2][i / 2].values[k % 2 * 2 + i % 2] * slope[k];
        if (j < all.from || j + tiles * 8 > all.to) hide(t, in, orders, j, of[k], x);
        accumulate(x, p[k]);
      }
    }
  }
  /// The keys of columns j … j + 15; behind the last token its key again.
  KVEVICT_DEVICE void load(thread& t, key_rows<Entry, Product> const& at, std::int32_t j, std::int32_t last,
                           typename Product::columns (&keys)[tiles]) const {
    KVEVICT_UNROLL
    for (int n = 0; n < tiles; ++n)
      keys[n] = product.load_columns(t, [&](std::uint32_t k) {
        std::int32_t const token = std::min(j + n * 8 + static_cast<std::int32_t>(k), last), page = page_size(token);
        return at.slot(page, token - page * at.page_size);
      });
  }
  KVEVICT_DEVICE static void hide(thread& t, window_rows const& in, token_orders const& orders, std::int32_t j,
                                  std::int32_t w, float (&x)[2 * tiles]) {
    KVEVICT_UNROLL
    for (int i = 0; i < 2 * tiles; ++i)
      if (!orders.sees(in, w, j + i / 2 * 8 + static_cast<std::int32_t>(t.lane() % 4 * 2) + i % 2)) x[i] = -3e38f;
  }
  /// More logits of a row. A NaN or an infinite one makes the sum NaN, which it then stays.
  KVEVICT_DEVICE static void accumulate(float const (&x)[2 * tiles], part& p) {
    float peak = p.peak;
    KVEVICT_UNROLL
    for (int i = 0; i < 2 * tiles; ++i) peak = fmaxf(peak, x[i]);
    p.sum *= exp2(p.peak - peak), p.peak = peak;
    KVEVICT_UNROLL
    for (int i = 0; i < 2 * tiles; ++i) p.sum += exp2(x[i] - peak);
  }
};

/// lse = peak + log2(sum) over the splits, in order; one thread per query row. And, where check_window_kernel does not
/// run, what it checks: the kernels behind it are those that need it.
///
/// Shapes   peaks, sums (B·H, splits, G·rows) → lse (B·H, G·most_rows).
template <class Entry> struct lse_kernel {
  static constexpr int max_threads = 256;
  static constexpr int at_once = 8;  // loads, which would wait for each other one by one
  attention_call<Entry> c;
  reading what;
  float const *peaks, *sums;
  lse_splits cut;
  bool checked;  // by check_window_kernel

  KVEVICT_DEVICE void operator()(thread& t) const {
    std::int64_t const at = std::int64_t{t.block().x} * t.block_size().x + t.linear_index(),
                       wide = std::int64_t{c.group} * c.most_rows, r = at / wide, i = at % wide;
    if (r >= c.out.count() || c.watch.stopped(t) || !c.out.rows[r].active) return;
    if (i == 0 && !checked) expect_rows(t, c, c.out.rows[r], what);
    window_rows const in = c.window_of(c.out.rows[r]);
    std::int32_t const total = in.count * c.group;
    if (i >= total) return;
    std::int64_t const used =
        lse_splits::is_split(total) ? (c.out.rows[r].tokens + lse_splits::width - 1) / lse_splits::width : 1;
    float peak = -1e30f, sum = 0;
    for (std::int64_t s = 0; s < used; s += at_once) {
      float p[at_once], x[at_once];
      KVEVICT_UNROLL
      for (int k = 0; k < at_once; ++k) {
        bool const there = s + k < used;  // else what changes nothing
        std::int64_t const from = r * cut.stride + (s + k) * total + i;
        p[k] = there ? peaks[from] : -1e30f, x[k] = there ? sums[from] : 0;
      }
      KVEVICT_UNROLL
      for (int k = 0; k < at_once; ++k) {
        float const top = fmaxf(p[k], peak);
        sum = kvevict::multiply_add(sum, exp2(peak - top), x[k] * exp2(p[k] - top));
        peak = top;
      }
    }
    c.lse[r * wide + i] = with_sink(in, c.out.rows[r], r, static_cast<std::int32_t>(i), peak, sum);
  }

 private:
  /// +∞ of a row that sees nothing, so that its weights are 0; NaN of one whose logits are all −∞.
  KVEVICT_DEVICE float with_sink(window_rows const& in, row const& it, std::int64_t r, std::int32_t i, float peak,
                                 float sum) const {
    if (sum == 0)
      return in.sees_any(i % in.count, it.tokens, c.out.positions_of(r)) ? std::numeric_limits<float>::quiet_NaN()
                                                                         : std::numeric_limits<float>::infinity();
    float const lse = peak + log2(sum);
    if (c.q.sink_logits == nullptr) return lse;
    float const gain = c.gains == nullptr ? 1.0f : c.gains[r * c.most_rows + i % in.count];
    float const sink = c.q.sink_logits[it.head * c.group + i / in.count] * gain * 1.44269504088896341f;
    float const top = fmaxf(lse, sink);
    return top + log2(exp2(lse - top) + exp2(sink - top));
  }
};

}  // namespace kvevict::inline KVEVICT_ABI::cuda
