// SPDX-License-Identifier: Apache-2.0
// What a call of window_scores works on: which query rows each KV head reads, and the scratch that takes.
#pragma once

#include <kvevict/kernels/expect_window.hpp>
#include <kvevict/kernels/pool.hpp>
#include <kvevict/kernels/softmax.hpp>
#include <kvevict/kernels/step_gain.hpp>

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

  constexpr std::int64_t tiles() const { return padded(tokens, tile_tokens) / tile_tokens; }
  constexpr std::int64_t query_floats() const {
    return padded(query_block_floats(std::int64_t{group} * window, head_dim), 16);
  }
  constexpr std::int64_t share_floats() const {
    std::int64_t const scores = query_floats() + tile_floats(head_dim) + std::int64_t{group} * tile_tokens;
    return padded(std::max(scores, pool_width > 1 ? pool_row_floats(tokens, pool_width) : 0), 16);
  }
};

inline window_shape window_shape_of(query_rows const& q, window_options const& o, score_rows const& out) {
  window_shape s{out.count() == 0 ? 1 : q.heads / out.heads,         0, q.head_dim, o.pool_before_group.width, 0,
                 q.lse != nullptr && o.weights == weighting::softmax};
  for (std::int64_t r = 0; r < out.count(); ++r) {
    if (!out.rows[r].active) continue;
    s.tokens = std::max<std::int64_t>(s.tokens, out.rows[r].tokens);
    s.window = std::max(s.window, std::min(o.rows, q.rows(out.rows[r].sequence)));
  }
  return s;
}

/// One active row.
struct window_row {
  std::int64_t index, first_query, tiles;
  std::int32_t b, h, tokens, window, first_token;  // first_token: where the first window row is in the cache
  std::int32_t rows;                               // G·window padded to whole row blocks
  float* gains = nullptr;                          // (window), step gain only
  // without the engine's LSE: (rows), (tiles, rows), (tiles, rows)
  float *lse = nullptr, *peak = nullptr, *sum = nullptr;
  float* weights = nullptr;  // (tiles, rows, tile_tokens): 2^(z − peak), or null
  float* heads = nullptr;    // (G, tiles·tile_tokens) when query heads are pooled one by one

  std::int64_t weight_bytes() const { return tiles * rows * tile_tokens * 4; }
};

inline window_row describe_window(query_rows const& q, window_options const& o, score_rows const& out, std::int64_t r) {
  row const& row = out.rows[r];
  std::int32_t const given = q.rows(row.sequence) - o.skip;
  std::int32_t const end = o.sees == visibility::all ? given : std::min(given, row.tokens - o.skip);
  std::int32_t const window = std::max(0, std::min(o.rows, end)), G = q.heads / out.heads;
  window_row w{};
  w.index = r, w.b = row.sequence, w.h = row.head, w.tokens = row.tokens, w.window = window;
  w.tiles = padded(row.tokens, tile_tokens) / tile_tokens;
  w.rows = static_cast<std::int32_t>(padded(std::int64_t{window} * G, row_block));
  w.first_query = q.row_begin[row.sequence + 1] - o.skip - window;
  w.first_token = row.tokens - o.skip - window;
  return w;
}

/// The row with its scratch taken.
inline window_row take_window(frame& f, window_row w, window_shape const& s, query_rows const& q,
                              window_options const& o, score_rows const& out) {
  if (s.pool_width > 1) w.heads = f.take<float>(s.group * w.tiles * tile_tokens);
  if (s.normalised) return w;
  w.lse = f.take<float>(w.rows), w.peak = f.take<float>(w.tiles * w.rows), w.sum = f.take<float>(w.tiles * w.rows);
  if (w.weight_bytes() <= kept_weights_bytes) w.weights = f.take<float>(w.weight_bytes() / 4);
  if (o.weights == weighting::softmax) return w;
  w.gains = f.take<float>(w.window);
  for (std::int32_t i = 0; i < w.window; ++i) {
    std::int64_t const position = q.positions == nullptr ? w.first_token + i : q.positions[w.first_query + i];
    w.gains[i] = step_gain(position + 1, out.rows[w.index].budget, o.min_gain);
  }
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
    std::int64_t const needed = std::min<std::int64_t>(std::int64_t{o.rows} + o.skip, row.tokens);
    KVEVICT_EXPECTS(!row.active || q.rows(row.sequence) >= needed, "window_scores: sequence ", row.sequence,
                    " hands in ", q.rows(row.sequence), " query rows and the window needs ", needed,
                    "; hand in the queries of its newest tokens");
  }
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
