// SPDX-License-Identifier: Apache-2.0
// One call of window_scores or window_weights: the logits of window rows, tile by tile, to sums of their weights.
#pragma once

#include <algorithm>

#include <kvevict/core/fill.hpp>
#include <kvevict/kernels/pool.hpp>
#include <kvevict/kernels/window_rows.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

template <class Entry> class window_pass {
 public:
  window_pass(host& ctx, layer_view<Entry> const& view, query_rows const& q, window_options const& o,
              score_rows const& out, bool apart)
      : ctx_(ctx),
        view_(view),
        keys_(*view.find(role::k)),
        q_(q),
        o_(o),
        out_(out),
        shape_(window_shape_of(q, o, out, apart)) {}

  /// Scores as many rows from `first` on as scratch allows; the next row to do.
  std::int64_t run(std::int64_t first) {
    frame f(ctx_.scratch());
    window_row* const rows = f.allocate<window_row>(out_.count() - first);
    std::int64_t count = 0, next = first, room = kept_weights_bytes * ctx_.concurrency();
    for (; next < out_.count(); ++next) {
      if (!out_.rows[next].active || out_.rows[next].tokens == 0) continue;
      window_row const w = describe_window(view_, q_, o_, out_, next, shape_.apart);
      room -= shape_.normalised ? 0 : std::min(w.weight_bytes(), kept_weights_bytes);
      if (count > 0 && room < 0) break;
      rows[count++] = read_window(f, view_, w, shape_, q_, o_, out_);
    }
    share_ = shape_.share_floats();
    memory_ = f.allocate<float>(share_ * ctx_.concurrency());
    score(rows, count);
    return next;
  }

 private:
  void score(window_row const* rows, std::int64_t count) {
    std::int64_t const items = (shape_.tiles() + tiles_per_item - 1) / tiles_per_item;
    std::int64_t work = 0;  // products, 32 of them a nanosecond
    for (std::int64_t i = 0; i < count; ++i) work += std::int64_t{rows[i].rows} * rows[i].tokens * q_.head_dim / 32;
    auto const each_item = [&](auto step) {
      ctx_.for_each(
          count * items,
          [&](std::int64_t i, std::int32_t slot) {
            window_row const& w = rows[i % count];
            std::int64_t const first = i / count * tiles_per_item;
            if (first < w.tiles)
              (this->*step)(w, first, std::min(first + tiles_per_item, w.tiles), memory_ + slot * share_);
          },
          work);
    };
    if (!shape_.normalised) {
      each_item(&window_pass::measure);
      ctx_.for_each(
          count, [&](std::int64_t i, std::int32_t) { normalise(rows[i], q_, shape_.group); }, work);
    }
    each_item(&window_pass::sum_columns);
    for (std::int64_t i = 0; shape_.normalised && i < count; ++i) check(rows[i]);
    if (shape_.pool_width > 1)
      ctx_.for_each(count, [&](std::int64_t i, std::int32_t slot) { pool_heads(rows[i], memory_ + slot * share_); });
  }

  query_block pack(window_row const& w, float* memory) const {
    query_block q = make_query_block(memory, w.in.count * shape_.group, q_.head_dim);
    query_rows const own = q_.of(w.b);
    pack_queries(q, own, w.in, 0, w.in.count, w.h, shape_.group, w.gains);
    q.tokens = w.tokens, q.orders = out_.positions == nullptr ? nullptr : out_.positions + out_.begin[w.index];
    if (q.orders != nullptr) q.all = {0, 0};
    if (w.lse != nullptr)
      q.lse = w.lse;
    else if (shape_.normalised)
      fill_lse(q, own, w.in, 0, w.h, shape_.group);
    return q;
  }

  void check(window_row const& w) const {
    double norm = -1;
    query_rows const own = q_.of(w.b);
    for (std::int32_t g = 0; g < shape_.group; ++g)
      expect_sums(view_, keys_, own, w.in, 0, w.in.count, std::int64_t{w.h} * shape_.group + g, out_.rows[w.index],
                  o_.place == row_place::in_cache ? q_.sum : row_sum::at_most_one, w.checked.from(g * w.in.count),
                  memory_, norm);
  }

  /// Packs a tile; the next one comes back, to be fetched.
  tile_ahead pack_tile(window_row const& w, std::int64_t tile, float* to) const {
    pack_keys(view_, w.b, w.h, tile * tile_tokens, w.tokens, to);
    return tile_ahead(view_, w.b, w.h, (tile + 1) * tile_tokens, w.tokens,
                      w.rows / row_block * padded(q_.head_dim, lanes) / lanes);
  }

  /// Maximum and sum of every row in each tile, and the exponentials where they are kept.
  void measure(window_row const& w, std::int64_t first, std::int64_t last, float* memory) {
    query_block const q = pack(w, memory);
    float* const tokens = memory + shape_.query_floats();
    for (std::int64_t t = first; t < last; ++t) {
      if (q.sees_none(t * tile_tokens)) {
        leave_out(w, t);
        continue;
      }
      tile_ahead next = pack_tile(w, t, tokens);
      for (int r = 0; r < w.rows; r += row_block) {
        vec z[row_block][tile_vectors];
        logits(q, r, tokens, t * tile_tokens, next, z);
        std::int64_t const at = t * w.rows + r;
        exponentiate(z, w.weights == nullptr ? nullptr : w.weights + at * tile_tokens, w.peak + at, w.sum + at);
      }
    }
  }

  void sum_columns(window_row const& w, std::int64_t first, std::int64_t last, float* memory) {
    query_block const q = w.weights == nullptr ? pack(w, memory) : query_block{};
    float* const tokens = memory + shape_.query_floats();
    float* const sums = tokens + tile_floats(q_.head_dim);  // (G, w.sums, tile_tokens)
    float* const checked = shape_.normalised ? sums + shape_.group * w.sums * tile_tokens : nullptr;  // (rows, lanes)
    if (checked != nullptr) kvevict::fill_n(checked, std::int64_t{w.rows} * lanes, 0.0f);
    for (std::int64_t t = first; t < last; ++t) {
      kvevict::fill(sums, sums + shape_.group * w.sums * tile_tokens, 0.0f);
      if (w.weights != nullptr)
        add_kept(w, t, sums);
      else if (!q.sees_none(t * tile_tokens)) {
        tile_ahead next = pack_tile(w, t, tokens);
        for (int r = 0; r < w.rows; r += row_block) {
          vec z[row_block][tile_vectors];
          logits(q, r, tokens, t * tile_tokens, next, z);
          add_weights(z, q, r, w.per_sum(), sums, checked);
        }
      }
      put(w, t * tile_tokens, sums);
    }
    if (checked != nullptr) take_parts(checked, w.in.count * shape_.group, w.checked);
  }

  /// A tile's sums of kept exponentials, a register for each vector of tokens.
  void add_kept(window_row const& w, std::int64_t t, float* sums) const {
    std::int32_t const rows = w.in.count * shape_.group;
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

  /// A tile's sums, reduced, to the scores; or as they are to the heads that are pooled one by one.
  void put(window_row const& w, std::int64_t first, float* sums) const {
    std::int64_t const wide = std::int64_t{w.sums} * tile_tokens;
    float const share = o_.reduce == row_reduce::mean ? 1.0f / static_cast<float>(std::max(w.per_sum(), 1)) : 1.0f;
    for (std::int64_t j = 0; j < shape_.group * wide; j += lanes) store(sums + j, load(sums + j) * share);
    if (w.heads != nullptr) {
      for (std::int32_t g = 0; g < shape_.group; ++g)
        kvevict::copy_n(sums + g * tile_tokens, tile_tokens, w.heads + g * w.tiles * tile_tokens + first);
      return;
    }
    reduce_heads(o_.group, shape_.group, wide, wide, sums);
    for (std::int32_t i = 0; i < w.sums; ++i)
      kvevict::copy_n(sums + i * tile_tokens, std::min<std::int64_t>(tile_tokens, w.tokens - first),
                      out_.plane(i).scores(w.index).data + first);
  }

  void pool_heads(window_row const& w, float* memory) const {
    std::int64_t const stride = w.tiles * tile_tokens;
    for (std::int32_t g = 0; g < shape_.group; ++g)
      pool_row(o_.pool_before_group, w.heads + g * stride, out_.rows[w.index].last, memory);
    reduce_heads(o_.group, shape_.group, stride, stride, w.heads);
    kvevict::copy_n(w.heads, w.tokens, out_.scores(w.index).data);
  }

  host& ctx_;
  layer_view<Entry> const& view_;
  component const& keys_;
  query_rows const& q_;
  window_options const& o_;
  score_rows const& out_;
  window_shape shape_;
  std::int64_t share_ = 0;
  float* memory_ = nullptr;
};

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
