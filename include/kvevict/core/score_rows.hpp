// SPDX-License-Identifier: Apache-2.0
// The rows that a plan works on, one per (sequence, KV head), and their scores.
#pragma once

#include <cstdint>
#include <limits>

#include <kvevict/core/slice.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// Two order_keys, and how many evictable scores of a row reach `high`, and how many are above `low`: what one search
/// has found and the next one need not. Nothing is found differently where the scores have changed since.
struct key_bracket {
  std::uint32_t low = 0, high = 0;
  std::int32_t from_high = 0, above_low = 0;
};

/// One row of a plan. Token j may be evicted when first ≤ order(j) < last, where order(j) is j itself in ascending rows
/// and the token's position in scattered ones; everything else is protected and has no score. `budget` counts all
/// tokens to keep, protected ones too.
struct row {
  std::int32_t sequence, head;
  std::int32_t tokens;        // N, physical length
  std::int32_t first, last;   // evictable interval of orders
  std::int32_t candidates;    // M, evictable tokens
  std::int32_t budget;        // ≤ tokens; the heads stage may move it between the heads of a sequence
  bool active;                // false: everything is kept, nothing is scored
  std::int32_t new_from = 0;  // observe(): tokens of this order or later have just arrived
  std::int32_t hidden = 0;    // evictable tokens that no later row sees, which have the lowest scores
  key_bracket known{};

  /// observe(): all its tokens are as if they had just arrived.
  constexpr bool starts_at_zero() const { return new_from == std::numeric_limits<std::int32_t>::min(); }
  constexpr std::int32_t protected_tokens() const { return tokens - candidates; }
  /// Evictable tokens that are worth keeping.
  constexpr std::int32_t room() const { return candidates - hidden; }
  /// Evictable tokens that stay.
  constexpr std::int32_t quota() const { return budget - protected_tokens(); }
};

/// The larger one; NaN when either is, so that a score which is not a number cannot hide behind one that is.
constexpr float larger_or_nan(float a, float b) { return a > b || a != a ? a : b; }

/// Σ over the heads of a sequence of budget − protected, or all that they have room for: the tokens that its scores
/// compete for.
constexpr std::int64_t pooled_quota(slice<row> of) {
  std::int64_t sum = 0, room = 0;
  for (row const& it : of) sum += it.quota(), room += it.room();
  return sum < room ? sum : room;
}

/// Rows in order b·heads + h, each with one float per token. A scorer fills the evictable tokens of the active rows.
/// All arrays are in the context's memory: only its kernels look into them.
///
/// Rows of pages (select::pages) have a full page of `page_size` tokens where others have a token: its counts, its
/// interval, its budget, its score. A part-filled last page is not among them, it stays.
struct score_rows {
  row* rows = nullptr;  // (B·H)
  std::int32_t sequences = 0, heads = 0;
  // (B·H + 1) start of each row in `values`: N floats a row (on a device `most_tokens` at least)
  std::int64_t const* begin = nullptr;
  float* values = nullptr;
  std::int32_t const* positions = nullptr;  // same shape, or null: rows are ascending and the token index is the order
  std::int32_t layer = 0, layers = 1;       // of a stack the first and how many
  std::int64_t most_tokens = 0;             // no row is longer
  std::int64_t total_floats = 0;            // of a plane of `values`
  bool observed = false;                    // of observe(): a window reads the rows that have just come
  std::int32_t page_size = 1;
  row const* of_tokens = nullptr;  // (B·H) of rows of pages: those of their tokens
  std::int32_t first_head = 0, model_heads = 0;  // as budget.head and head_count; 0: the rows are those of all heads

  /// Whose rows they are: what their errors begin with.
  constexpr char const* verb() const { return observed ? "observe" : "plan"; }
  constexpr std::int64_t count() const { return std::int64_t{sequences} * heads; }
  constexpr slice<float> scores(std::int64_t r) const { return {values + begin[r], begin[r + 1] - begin[r]}; }
  constexpr std::int32_t layer_of(std::int32_t sequence) const {
    return layer + (layers == 1 ? 0 : sequence / (sequences / layers));
  }
  constexpr std::int64_t index_of(row const& in) const { return std::int64_t{in.sequence} * heads + in.head; }
  /// The score of a token of that row.
  constexpr float& score(row const& in, std::int64_t token) const { return values[begin[index_of(in)] + token]; }
  /// Where several floats belong to a token, those with number i.
  constexpr score_rows plane(std::int64_t i) const {
    score_rows out = *this;
    out.values += i * total_floats;
    return out;
  }
  /// Of a scattered row's tokens, or null.
  constexpr std::int32_t const* positions_of(std::int64_t r) const {
    return positions == nullptr ? nullptr : positions + begin[r];
  }
  constexpr std::int32_t order(std::int64_t r, std::int64_t token) const {
    return positions == nullptr ? static_cast<std::int32_t>(token) : positions[begin[r] + token];
  }
  /// The order from which on tokens of a scattered row have just arrived, where one has: its newest token's in a row of
  /// which all start at zero, too.
  constexpr std::int32_t newest_order(std::int64_t r) const {
    std::int32_t newest = rows[r].new_from;
    if (rows[r].starts_at_zero())
      for (std::int64_t j = 0; j < rows[r].tokens; ++j) newest = newest < order(r, j) ? order(r, j) : newest;
    return newest;
  }
  constexpr bool evictable(std::int64_t r, std::int64_t token) const {
    std::int32_t const p = order(r, token);
    return p >= rows[r].first && p < rows[r].last;
  }
  /// How many tokens of a scattered row may be evicted.
  constexpr std::int32_t count_evictable(std::int64_t r) const {
    row const it = rows[r];
    std::int32_t const* const p = positions + begin[r];
    std::int32_t found = 0;
    for (std::int32_t j = 0; j < it.tokens; ++j) found += int{p[j] >= it.first} & int{p[j] < it.last};
    return found;
  }
};

/// Whose tokens compete with each other: those of a sequence's heads in one layer, or in all layers of the view.
enum class pool_over : std::uint8_t { heads, layers };

/// Rows in pools: a pool's members by layer, then by head.
struct row_pools {
  std::int64_t count = 0, members = 0, heads = 1;

  constexpr row_pools(score_rows const& of, pool_over over) : heads(of.heads) {
    std::int64_t const layers = over == pool_over::layers ? of.layers : 1;
    count = of.sequences / layers, members = layers * heads;
  }
  constexpr std::int64_t row_of(std::int64_t pool, std::int64_t member) const {
    return (member / heads * count + pool) * heads + member % heads;
  }
  constexpr std::int64_t pool_of(std::int64_t row) const { return row / heads % count; }
  /// f(row) of every member, in their order.
  template <class F> constexpr void each(std::int64_t pool, F f) const {
    for (std::int64_t first = pool * heads, end = members * count; first < end; first += count * heads)
      for (std::int64_t h = 0; h < heads; ++h) f(first + h);
  }
};

/// Of a pool's rows that are cut: how many they are, and for how many of their tokens there is room.
struct pool_quota {
  std::int64_t rows = 0, tokens = 0;

  constexpr pool_quota() = default;
  constexpr pool_quota(score_rows const& s, row_pools const& pools, std::int64_t pool) {
    std::int64_t room = 0;
    pools.each(pool, [&](std::int64_t r) {
      row const& it = s.rows[r];
      if (it.active) ++rows, tokens += it.quota(), room += it.room();
    });
    if (tokens > room) tokens = room;
  }
};

}  // namespace KVEVICT_ABI
}  // namespace kvevict
