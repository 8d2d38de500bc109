// SPDX-License-Identifier: Apache-2.0
// The logits of window rows, tile by tile, to sums of their weights.
#pragma once

#include <algorithm>

#include <kvevict/core/fill.hpp>
#include <kvevict/kernels/pool.hpp>
#include <kvevict/kernels/short_windows.hpp>
#include <kvevict/kernels/window_call.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

template <class Entry> class window_pass : window_call<Entry> {
  using call = window_call<Entry>;
  using call::ctx, call::view, call::q, call::o, call::out, call::shape;
  using call::pack, call::check, call::put;

 public:
  explicit window_pass(call const& c) : call(c) {}

  /// Scores as many rows from `first` on as scratch allows; the next row to do.
  std::int64_t run(std::int64_t first) {
    frame f(ctx.scratch());
    window_row* const rows = f.allocate<window_row>(out.count() - first);
    std::int64_t count = 0, next = first, room = kept_weights_bytes * ctx.concurrency();
    for (; next < out.count(); ++next) {
      if (!out.rows[next].active || out.rows[next].tokens == 0) continue;
      window_row const w = describe_window(view, q, o, out, next, shape);
      room -= shape.normalised ? 0 : std::min(w.weight_bytes(), kept_weights_bytes);
      if (count > 0 && room < 0) break;
      rows[count++] = read_window(f, view, w, shape, q, o, out);
    }
    sum_together(rows, count);
    share_ = shape.share_floats();
    memory_ = f.allocate<float>(share_ * ctx.concurrency());
    score(rows, count);
    return next;
  }

 private:
  /// Heads of few rows, side by side, are worked on together.
  void sum_together(window_row* rows, std::int64_t count) const {
    for (std::int64_t i = 0, n; i < count; i += n) {
      auto const joins = [&] { return i + n < count && n < shape.short_heads() && rows[i + n].joins(rows[i]); };
      for (n = 1; joins();) ++n;
      for (std::int64_t k = 0; k < n; ++k)
        rows[i + k].number = static_cast<std::int32_t>(k), rows[i + k].together = static_cast<std::int32_t>(n);
    }
  }
  /// A share of tiles [first, first + tiles_per_item) of the heads that are together with w: each of the first few
  /// heads' items is one, so that threads have work, and queries are packed for eight tiles at least.
  void sum_short(window_row const& w, std::int64_t first, float* memory) const {
    std::int64_t const shares = std::min(w.together, 4);
    if (w.number < shares)
      short_windows<Entry>(*this, &w - w.number, w.together, memory)
          .sum_columns(first + tiles_per_item * w.number / shares, first + tiles_per_item * (w.number + 1) / shares);
  }

  void score(window_row const* rows, std::int64_t count) {
    std::int64_t const items = (shape.tiles() + tiles_per_item - 1) / tiles_per_item;
    std::int64_t work = 0;  // products, 32 of them a nanosecond
    for (std::int64_t i = 0; i < count; ++i) work += std::int64_t{rows[i].rows} * rows[i].tokens * q.head_dim / 32;
    auto const each_item = [&](auto step) {
      ctx.for_each(
          count * items,
          [&](std::int64_t i, std::int32_t slot) {
            window_row const& w = rows[i % count];
            std::int64_t const first = i / count * tiles_per_item;
            float* const memory = memory_ + slot * share_;
            if (w.is_short)
              sum_short(w, first, memory);
            else if (first < w.tiles)
              (this->*step)(w, first, std::min(first + tiles_per_item, w.tiles), memory);
          },
          work);
    };
    if (!shape.normalised) {
      each_item(&window_pass::measure);
      auto const to_lse = [&](std::int64_t i, std::int32_t) {
        normalise(rows[i], q, shape.group, out.positions_of(rows[i].index));
      };
      ctx.for_each(count, to_lse, work);
    }
    each_item(&window_pass::sum_columns);
    for (std::int64_t i = 0; shape.normalised && i < count; ++i) check(rows[i], memory_);
    if (shape.pool_width > 1)
      ctx.for_each(count, [&](std::int64_t i, std::int32_t slot) { pool_heads(rows[i], memory_ + slot * share_); });
  }

  /// Packs a tile; the next one comes back, to be fetched.
  tile_ahead pack_tile(window_row const& w, std::int64_t tile, float* to) const {
    pack_keys(view, w.b, w.h, tile * tile_tokens, w.tokens, to);
    return tile_ahead(view, w.b, w.h, (tile + 1) * tile_tokens, w.tokens, w.rows / row_block);
  }

  /// Maximum and sum of every row in each tile, and the exponentials where they are kept.
  void measure(window_row const& w, std::int64_t first, std::int64_t last, float* memory) {
    query_block const block = pack(w, memory);
    float* const tokens = memory + shape.query_floats();
    for (std::int64_t t = first; t < last; ++t) {
      if (block.sees_none(t * tile_tokens)) {
        leave_out(w, t);
        continue;
      }
      tile_ahead next = pack_tile(w, t, tokens);
      for (int r = 0; r < w.rows; r += row_block) {
        vec z[row_block][tile_vectors];
        next.step();
        logits(block, r, tokens, t * tile_tokens, z);
        std::int64_t const at = t * w.rows + r;
        exponentiate(z, w.weights == nullptr ? nullptr : w.weights + at * tile_tokens, w.peak + at, w.sum + at);
      }
    }
  }

  void sum_columns(window_row const& w, std::int64_t first, std::int64_t last, float* memory) {
    query_block const block = w.weights == nullptr ? pack(w, memory) : query_block{};
    float* const tokens = memory + shape.query_floats();
    float* const sums = tokens + tile_floats(q.head_dim);  // (G, w.sums, tile_tokens)
    float* const checked = shape.normalised ? sums + shape.group * w.sums * tile_tokens : nullptr;  // (rows, lanes)
    if (checked != nullptr) kvevict::fill_n(checked, std::int64_t{w.rows} * lanes, 0.0f);
    for (std::int64_t t = first; t < last; ++t) {
      kvevict::fill(sums, sums + shape.group * w.sums * tile_tokens, 0.0f);
      if (w.weights != nullptr)
        add_kept(w, t, sums);
      else if (!block.sees_none(t * tile_tokens)) {
        tile_ahead next = pack_tile(w, t, tokens);
        for (int r = 0; r < w.rows; r += row_block) {
          vec z[row_block][tile_vectors];
          next.step();
          logits(block, r, tokens, t * tile_tokens, z);
          add_weights(z, block, r, w.per_sum(), sums, checked);
        }
      }
      put(w, t * tile_tokens, sums);
    }
    if (checked != nullptr) take_parts(checked, w.in.count * shape.group, w.checked);
  }

  /// A tile's sums of kept exponentials, a register for each vector of tokens.
  void add_kept(window_row const& w, std::int64_t t, float* sums) const {
    std::int32_t const rows = w.in.count * shape.group;
    for (std::int32_t r = 0; r < rows; sums += tile_tokens) {
      vec all[tile_vectors] = {};
      for (std::int32_t const end = r + w.per_sum(); r < end; ++r) {
        vec const share = splat(w.peak[t * w.rows + r]);
        float const* const weights = w.weights + (t * w.rows + r) * tile_tokens;
        unroll<tile_vectors>([&](auto v) { all[v] = multiply_add(load(weights + v * lanes), share, all[v]); });
      }
      unroll<tile_vectors>([&](auto v) { store(sums + v * lanes, all[v]); });
    }
  }

  void pool_heads(window_row const& w, float* memory) const {
    std::int64_t const stride = w.tiles * tile_tokens;
    for (std::int32_t g = 0; g < shape.group; ++g)
      pool_row(o.pool_before_group, w.heads + g * stride, out.rows[w.index].last, memory);
    reduce_heads(o.group, shape.group, stride, stride, w.heads);
    kvevict::copy_n(w.heads, w.tokens, out.scores(w.index).data);
  }

  std::int64_t share_ = 0;
  float* memory_ = nullptr;
};

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
