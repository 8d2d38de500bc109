// SPDX-License-Identifier: Apache-2.0
// What a call of window_scores or window_weights works on: the rows of each KV head, and the scratch that takes.
#pragma once

#include <kvevict/core/step_gain.hpp>
#include <kvevict/kernels/expect_window.hpp>
#include <kvevict/kernels/pool.hpp>
#include <kvevict/kernels/softmax.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {
/// Without LSE the exponentials of KV heads are kept up to this many bytes a worker; a head with more has its logits
/// computed twice.
inline constexpr std::int64_t kept_weights_bytes = std::int64_t{32} << 20;
inline constexpr std::int64_t tiles_per_item = 32;

/// The largest row of a call, and what a worker needs for it.
struct window_shape {
  std::int32_t group, window, head_dim, pool_width;
  std::int64_t tokens;
  bool normalised;  // the engine's LSE is used
  bool apart;       // window rows are not summed

  constexpr std::int64_t tiles() const { return padded(tokens, tile_tokens) / tile_tokens; }
  constexpr std::int64_t query_floats() const {
    return padded(query_block_floats(std::int64_t{group} * window, head_dim), 16);
  }
  constexpr std::int64_t share_floats() const {
    std::int64_t const sums = std::int64_t{group} * (apart ? window : 1) * tile_tokens;
    std::int64_t const scores = query_floats() + tile_floats(head_dim) + sums;
    return padded(std::max(scores, pool_width > 1 ? pool_row_floats(tokens, pool_width) : 0), 16);
  }
};

inline window_shape window_shape_of(query_rows const& q, window_options const& o, score_rows const& out, bool apart) {
  window_shape s{out.count() == 0 ? 1 : q.heads / out.heads,     0,    q.head_dim, o.pool_before_group.width, 0,
                 q.has_lse() && o.weights == weighting::softmax, apart};
  for (std::int64_t r = 0; r < out.count(); ++r) {
    if (!out.rows[r].active) continue;
    s.tokens = std::max<std::int64_t>(s.tokens, out.rows[r].tokens);
    s.window = std::max(s.window, std::min(o.rows, q.rows(out.rows[r].sequence)));
  }
  return s;
}

/// One active row.
struct window_row {
  std::int64_t index, tiles;
  std::int32_t b, h, tokens;
  window_rows in;
  std::int32_t rows;       // G·W padded to whole row blocks
  std::int32_t sums;       // of a query head: 1, or W
  float* gains = nullptr;  // (W), step gain only
  // without the engine's LSE: (rows), (tiles, rows), (tiles, rows)
  float *lse = nullptr, *peak = nullptr, *sum = nullptr;
  float* weights = nullptr;  // (tiles, rows, tile_tokens): 2^(z − peak), or null
  float* heads = nullptr;    // (G, tiles·tile_tokens) when query heads are pooled one by one

  std::int32_t per_sum() const { return sums == 1 ? in.count : 1; }
  std::int64_t weight_bytes() const { return tiles * rows * tile_tokens * 4; }
};

inline window_row describe_window(query_rows const& q, window_options const& o, score_rows const& out, std::int64_t r,
                                  bool apart) {
  row const& row = out.rows[r];
  window_row w{};
  w.index = r, w.b = row.sequence, w.h = row.head, w.tokens = row.tokens;
  w.in = newest_rows(q, row.sequence, row.tokens, o.rows, o.sees, out.positions != nullptr);
  w.tiles = padded(row.tokens, tile_tokens) / tile_tokens;
  w.rows = static_cast<std::int32_t>(padded(std::int64_t{w.in.count} * (q.heads / out.heads), row_block));
  w.sums = apart ? w.in.count : 1;
  return w;
}

/// The row with its scratch taken.
inline window_row read_window(frame& f, window_row w, window_shape const& s, query_rows const& q,
                              window_options const& o, score_rows const& out) {
  if (s.pool_width > 1) w.heads = f.allocate<float>(s.group * w.tiles * tile_tokens);
  if (s.normalised) return w;
  w.lse = f.allocate<float>(w.rows), w.peak = f.allocate<float>(w.tiles * w.rows),
  w.sum = f.allocate<float>(w.tiles * w.rows);
  if (w.weight_bytes() <= kept_weights_bytes) w.weights = f.allocate<float>(w.weight_bytes() / 4);
  if (o.weights == weighting::softmax) return w;
  w.gains = f.allocate<float>(w.in.count);
  for (std::int32_t i = 0; i < w.in.count; ++i)
    w.gains[i] = step_gain(w.in.position(q.positions_of(w.b), i) + 1, out.rows[w.index].budget, o.min_gain);
  return w;
}

/// Scratch of window_scores for `rows` rows (B·H) of at most `tokens` tokens, G query heads each.
constexpr std::int64_t window_scores_bytes(std::int64_t rows, window_shape const& s, std::int64_t concurrency) {
  std::int64_t const block_rows = padded(std::int64_t{s.group} * s.window, row_block), fixed = 64;
  std::int64_t bytes =
      concurrency * s.share_floats() * 4 + padded(rows * static_cast<std::int64_t>(sizeof(window_row)), 64) + fixed;
  if (s.pool_width > 1) bytes += rows * padded(s.group * s.tiles() * tile_tokens * 4, 64);
  if (s.normalised) return bytes;
  std::int64_t const stats = padded(s.tiles() * block_rows * 4, 64) * 2,
                     weights = s.tiles() * block_rows * tile_tokens * 4;
  std::int64_t const limit = kept_weights_bytes * concurrency;
  bytes += rows * (padded(block_rows * 4, 64) + padded(s.window * 4, 64));
  return bytes + rows * stats + std::min(rows * padded(weights, 64), limit);
}

inline void expect_window(query_rows const& q, window_options const& o, score_rows const& out) {
  expect_window_options(q, o, out);
  for (std::int64_t r = 0; r < out.count(); ++r) {
    row const& row = out.rows[r];
    std::int32_t const needed = out.observed ? 1 : rows_needed(o.rows, row.tokens);
    if (row.active && q.rows(row.sequence) < needed)
      messages::too_few_queries(row.sequence, q.rows(row.sequence), needed);
  }
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
