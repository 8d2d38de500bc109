// SPDX-License-Identifier: Apache-2.0
// What a call of window_scores or window_weights works on: the rows of each KV head, and the scratch that takes.
#pragma once

#include <kvevict/cache/row_sights.hpp>
#include <kvevict/core/step_gain.hpp>
#include <kvevict/core/visibility_messages.hpp>
#include <kvevict/kernels/expect_window.hpp>
#include <kvevict/kernels/pool.hpp>
#include <kvevict/kernels/softmax.hpp>
#include <kvevict/kernels/weight_sums.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {
/// Without LSE the exponentials of KV heads are kept up to this many bytes a worker; a head with more has its logits
/// computed twice.
inline constexpr std::int64_t kept_weights_bytes = std::int64_t{32} << 20;
inline constexpr std::int64_t tiles_per_item = 32;
/// A KV head with at most short_rows query rows (G·W) goes to short_windows.hpp. A worker holds the products of at most
/// short_rows_at_once rows, and multiplies keys_abreast keys at a time.
inline constexpr std::int32_t short_rows = 16, short_rows_at_once = 64;
inline constexpr int keys_abreast = 2;

/// The largest row of a call, and what a worker needs for it.
struct window_shape {
  std::int32_t group, window, head_dim, pool_width;
  std::int64_t tokens;
  bool normalised;  // the engine's LSE is used
  bool apart;       // window rows are not summed
  std::int32_t heads;

  constexpr std::int64_t tiles() const { return padded(tokens, tile_tokens) / tile_tokens; }
  constexpr std::int64_t query_floats() const {
    return padded(query_block_floats(std::int64_t{group} * window, head_dim), 16);
  }
  constexpr std::int64_t block_rows() const { return padded(std::int64_t{group} * window, row_block); }
  /// Whether a KV head with that many window rows goes to short_windows.hpp.
  constexpr bool is_short(std::int32_t rows) const {
    return normalised && !apart && pool_width <= 1 && std::int64_t{group} * rows <= short_rows;
  }
  /// Query rows of the largest such head, in whole blocks.
  constexpr std::int64_t short_block_rows() const {
    return padded(std::clamp<std::int64_t>(std::int64_t{group} * window, 1, short_rows), row_block);
  }
  /// How many such heads a worker takes at once.
  constexpr std::int64_t short_heads() const {
    return std::min<std::int64_t>(heads, short_rows_at_once / short_block_rows());
  }
  /// So many query rows, their products with a tile and running sums of their weights.
  constexpr std::int64_t short_row_floats(std::int64_t rows) const {
    return query_block_floats(rows, head_dim) + rows * (tile_tokens + lanes);
  }
  /// Not of short_heads(): calls with shorter windows may take more rows at once.
  constexpr std::int64_t short_floats() const {
    std::int64_t const rows = std::min<std::int64_t>(heads * short_block_rows(), short_rows_at_once);
    std::int64_t const sums = std::int64_t{group} * tile_tokens, keys = keys_abreast * padded(head_dim, lanes);
    return is_short(1) ? short_row_floats(rows) + sums + keys : 0;
  }
  constexpr std::int64_t share_floats() const {
    std::int64_t const sums = std::int64_t{group} * (apart ? window : 1) * tile_tokens,
                       checked = normalised ? block_rows() * lanes : 0;
    std::int64_t const scores = query_floats() + tile_floats(head_dim) + sums + checked;
    return padded(std::max({scores, short_floats(), pool_width > 1 ? pool_row_floats(tokens, pool_width) : 0}), 16);
  }
};

inline window_shape window_shape_of(query_rows const& q, window_options const& o, score_rows const& out, bool apart) {
  window_shape s{out.count() == 0 ? 1 : q.heads / out.heads,     0,     q.head_dim, o.pool_before_group.width, 0,
                 q.has_lse() && o.weights == weighting::softmax, apart, out.heads};
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
  bool is_short;           // short_windows.hpp
  std::int32_t number, together;  // this head's among the heads that a worker takes at once, and how many those are
  float* gains = nullptr;  // (W), step gain only
  weight_sums checked;     // (rows), with the engine's LSE
  // without the engine's LSE: (rows), (tiles, rows), (tiles, rows)
  float *lse = nullptr, *peak = nullptr, *sum = nullptr;
  float* weights = nullptr;  // (tiles, rows, tile_tokens): 2^(z − peak), or null
  float* heads = nullptr;    // (G, tiles·tile_tokens) when query heads are pooled one by one

  bool joins(window_row const& other) const { return is_short && other.is_short && b == other.b; }
  std::int32_t per_sum() const { return sums == 1 ? in.count : 1; }
  std::int64_t weight_bytes() const { return tiles * rows * tile_tokens * 4; }
};

template <class Entry>
window_row describe_window(layer_view<Entry> const& view, query_rows const& q, window_options const& o,
                           score_rows const& out, std::int64_t r, window_shape const& s) {
  row const& row = out.rows[r];
  window_row w{};
  w.index = r, w.b = row.sequence, w.h = row.head, w.tokens = row.tokens;
  w.in = newest_rows(view, q, row.sequence, row.tokens, o.rows, o.place);
  w.tiles = padded(row.tokens, tile_tokens) / tile_tokens;
  w.rows = static_cast<std::int32_t>(padded(std::int64_t{w.in.count} * (q.heads / out.heads), row_block));
  w.sums = s.apart ? w.in.count : 1, w.is_short = s.is_short(w.in.count);
  return w;
}

/// What every row sees, where that does not follow from its number. Scratch: 8 bytes a row.
template <class Entry, class Rows>
void read_sights(frame& f, layer_view<Entry> const& view, Rows const& rows, std::int32_t b, std::int32_t h,
                 std::int32_t tokens, row_place place, window_rows& in) {
  if (sees_by_index(view, rows)) return;
  row_sights<Entry> const sights = sights_of(view, rows, b, h, tokens, in, place);
  auto* const each = f.allocate<sight>(in.count);
  for (std::int32_t w = 0; w < in.count; ++w) each[w] = sights.of(w);
  in.each = each, in.always = sights.always();
}

/// The row with its scratch taken.
template <class Entry>
window_row read_window(frame& f, layer_view<Entry> const& view, window_row w, window_shape const& s,
                       query_rows const& q, window_options const& o, score_rows const& out) {
  read_sights(f, view, q, w.b, w.h, w.tokens, o.place, w.in);
  if (s.pool_width > 1) w.heads = f.allocate<float>(s.group * w.tiles * tile_tokens);
  if (s.normalised) {
    w.checked = weight_sums(f, w.rows);
    return w;
  }
  w.lse = f.allocate<float>(w.rows), w.peak = f.allocate<float>(w.tiles * w.rows),
  w.sum = f.allocate<float>(w.tiles * w.rows);
  if (w.weight_bytes() <= kept_weights_bytes) w.weights = f.allocate<float>(w.weight_bytes() / 4);
  if (o.weights == weighting::softmax) return w;
  w.gains = f.allocate<float>(w.in.count);
  row_sights<Entry> const sights = sights_of(view, q, w.b, w.h, w.tokens, w.in, o.place);
  for (std::int32_t i = 0; i < w.in.count; ++i)
    // of scattered rows without positions it is the newest
    w.gains[i] = step_gain((sights.position(i) < 0 ? w.tokens - 1 : sights.position(i)) + 1, out.rows[w.index].budget,
                           o.min_gain);
  return w;
}

/// A tile that no row sees.
inline void leave_out(window_row const& w, std::int64_t t) {
  kvevict::fill_n(w.peak + t * w.rows, w.rows, below_all_logits), kvevict::fill_n(w.sum + t * w.rows, w.rows, 0.0f);
  if (w.weights != nullptr)
    kvevict::fill_n(w.weights + t * w.rows * tile_tokens, std::int64_t{w.rows} * tile_tokens, 0.0f);
}

/// A learned sink's logit for row r, in base 2.
inline float sink_of(query_rows const& q, window_row const& w, std::int32_t group, std::int32_t r) {
  float const gain = w.gains == nullptr ? 1.0f : w.gains[r % w.in.count];
  return q.sink_logits[w.h * group + std::min(r / w.in.count, group - 1)] * gain * 1.44269504088896341f;
}

/// From the tiles' maxima and sums to every row's LSE; where exponentials are kept, `peak` becomes what they are to be
/// multiplied with. `orders`: of scattered tokens, or null.
inline void normalise(window_row const& w, query_rows const& q, std::int32_t group, std::int32_t const* orders) {
  std::int64_t const all = w.tiles * w.rows;
  for (std::int32_t r = 0; r < w.rows; r += lanes) {
    std::int32_t const n = std::min(lanes, w.rows - r);
    vec peak = splat(below_all_logits), sum = {};
    for (std::int64_t i = r; i < all; i += w.rows) peak = max(load_some(w.peak + i, n), peak);
    for (std::int64_t i = r; i < all; i += w.rows)
      sum = multiply_add(load_some(w.sum + i, n), exp2(load_some(w.peak + i, n) - peak), sum);
    for (int i = 0; i < n; ++i) {
      w.lse[r + i] = lse_of(peak[i], sum[i], [&] { return w.in.sees_any((r + i) % w.in.count, w.tokens, orders); });
      if (q.sink_logits != nullptr) w.lse[r + i] = lse_with(w.lse[r + i], sink_of(q, w, group, r + i));
    }
    vec const lse = load_some(w.lse + r, n);
    for (std::int64_t i = r; w.weights != nullptr && i < all; i += w.rows)
      store_some(w.peak + i, exp2(load_some(w.peak + i, n) - lse), n);
  }
}

/// Scratch of window_scores for `rows` rows (B·H) of at most `tokens` tokens, G query heads each.
constexpr std::int64_t window_scores_bytes(std::int64_t rows, window_shape const& s, std::int64_t concurrency) {
  std::int64_t const block_rows = s.block_rows(), fixed = 64;
  std::int64_t bytes =
      concurrency * s.share_floats() * 4 + padded(rows * static_cast<std::int64_t>(sizeof(window_row)), 64) + fixed;
  if (s.pool_width > 1) bytes += rows * padded(s.group * s.tiles() * tile_tokens * 4, 64);
  bytes += rows * padded(s.window * static_cast<std::int64_t>(sizeof(sight)), 64);
  if (s.normalised) return bytes + rows * weight_sums::bytes(block_rows);
  std::int64_t const stats = padded(s.tiles() * block_rows * 4, 64) * 2,
                     weights = s.tiles() * block_rows * tile_tokens * 4;
  std::int64_t const limit = kept_weights_bytes * concurrency;
  bytes += rows * (padded(block_rows * 4, 64) + padded(s.window * 4, 64));
  return bytes + rows * stats + std::min(rows * padded(weights, 64), limit);
}

/// Every row of evidence can be told what it sees.
template <class Entry, class Rows>
void expect_sights(layer_view<Entry> const& view, Rows const& rows, row const& of, std::int32_t wanted,
                   row_place place) {
  if (rows.positions == nullptr && sees_by_index(view, rows)) return;
  window_rows const in = newest_rows(view, rows, of.sequence, of.tokens, wanted, place);
  row_sights<Entry> const sights = sights_of(view, rows, of.sequence, of.head, of.tokens, in, place);
  for (std::int32_t w = 0; w < in.count; ++w)
    if (sight_fault const why = sights.fault_of(w); why != sight_fault::none)
      messages::row_sight(why, of.sequence, of.head, in.first + w - rows.first_row(of.sequence), sights.position(w));
}

template <class Entry>
void expect_window(layer_view<Entry> const& view, query_rows const& q, window_options const& o, score_rows const& out) {
  expect_window_options(q, o, out);
  for (std::int64_t r = 0; r < out.count(); ++r) {
    row const& row = out.rows[r];
    std::int32_t const needed = out.observed ? 1 : rows_needed(o.rows, row.tokens);
    if (row.active && q.rows(row.sequence) < needed)
      messages::too_few_queries(row.sequence, q.rows(row.sequence), needed);
    if (row.active) expect_sights(view, q, row, o.rows, o.place);
  }
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
