// SPDX-License-Identifier: Apache-2.0
// Tokens that no later row sees: behind a sliding window, in an earlier chunk, padding.
#pragma once

#include <cstdint>

#include <kvevict/cache/row_sights.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/evidence/evidence.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace unseen {

/// Below every score that is one.
inline constexpr float score = -1e30f;
/// Whether that is what a score says, after heads or layers were joined, too.
constexpr bool is(float x) { return x <= score / 2; }

/// What the newest token's row sees of each row of the cache, in scratch.
struct sights {
  sight *seen, *always;  // (B·H)

  constexpr bool has(std::int64_t r, std::int32_t order) const {
    return order < seen[r].to && (order >= seen[r].from || always[r].has(order));
  }
};

/// Pages with a token that is seen.
constexpr sight in_pages(sight s, std::int32_t page) {
  return s.is_empty() ? sight{0, 0} : sight{s.from / page, s.to / page + (s.to % page > 0 ? 1 : 0)};
}

/// What each row has hidden: evictable tokens that are not seen. Of rows of pages the orders are pages.
template <class View> struct count_seen {
  View cache;
  visibility sees;
  score_rows rows;
  sights out;

  constexpr void operator()(slice<row> of, std::int64_t b) const {
    for (std::int64_t h = 0; h < of.size; ++h) {
      row& it = of[h];
      if (!it.active || it.tokens == 0) continue;
      std::int64_t const r = b * of.size + h;
      find(it, r);
      std::int32_t count = 0;
      if (rows.positions == nullptr)
        count =
            inside(it, out.seen[r]) + inside(it, sight{out.always[r].from, before(out.always[r].to, out.seen[r].from)});
      for (std::int32_t j = 0; rows.positions != nullptr && j < it.tokens; ++j)
        count += rows.evictable(r, j) && out.has(r, rows.order(r, j)) ? 1 : 0;
      it.hidden = it.candidates - count;
    }
  }

 private:
  static constexpr std::int32_t before(std::int32_t a, std::int32_t b) { return a < b ? a : b; }
  /// Evictable tokens with such orders, of an ascending row.
  static constexpr std::int32_t inside(row const& it, sight const& s) {
    std::int32_t const from = s.from > it.first ? s.from : it.first, to = before(s.to, it.last);
    return to > from ? to - from : 0;
  }
  constexpr void find(row const& it, std::int64_t r) const {
    component const* const carried = cache.find(role::position);
    std::int32_t const tokens = rows.of_tokens == nullptr ? it.tokens : rows.of_tokens[r].tokens;
    bool const scattered = rows.positions != nullptr;
    std::int32_t newest = 0;  // of scattered rows
    for (std::int32_t j = 0; scattered && j < it.tokens; ++j)
      if (j == 0 || rows.order(r, j) > newest) newest = rows.order(r, j);
    row_sights<typename View::table_entry> const of{
        {carried == nullptr ? token_rows<typename View::table_entry>{} : cache.rows_of(*carried, it.sequence, it.head),
         carried != nullptr, tokens, sees.padding(it.sequence)},
        scattered,
        row_place::in_cache,
        sees,
        nullptr,
        tokens - 1};
    out.seen[r] = scattered ? of.from_position(0, newest) : of.of(0), out.always[r] = of.always();
    if (rows.page_size == 1) return;
    out.seen[r] = in_pages(out.seen[r], rows.page_size), out.always[r] = in_pages(out.always[r], rows.page_size);
  }
};

/// What rows have room for. Those that keep equally many, a sequence's heads or its layers, have the room of the one
/// that sees most. Rows that share a budget keep to their room by their stage; one that has its own is cut.
struct cut_to_room {
  score_rows rows;
  row_pools pools;  // whose layers keep equally many
  bool heads_alike, shared;

  constexpr void operator()(slice<row> of, std::int64_t pool) const {
    std::int64_t const step = heads_alike ? of.size : 1;
    for (std::int64_t h = 0; pool < pools.count && h < of.size; h += step) cut(pool, h, h + step);
  }

 private:
  constexpr void cut(std::int64_t pool, std::int64_t first, std::int64_t last) const {
    std::int32_t most = 0;  // tokens that are worth keeping, protected ones among them
    each(pool, first, last, [&](row const& it) {
      if (it.tokens - it.hidden > most) most = it.tokens - it.hidden;
    });
    each(pool, first, last, [&](row& it) {
      it.hidden = it.tokens < most ? 0 : it.tokens - most;
      if (!shared && it.quota() > it.room()) it.budget = it.protected_tokens() + it.room();
    });
  }
  template <class F> constexpr void each(std::int64_t pool, std::int64_t first, std::int64_t last, F f) const {
    for (std::int64_t layer = 0; layer < pools.members; layer += pools.heads)
      for (std::int64_t h = first; h < last; ++h)
        if (row& it = rows.rows[pools.row_of(pool, layer + h)]; it.active) f(it);
  }
};

struct put_last {
  score_rows rows;
  sights seen;

  constexpr void operator()(row const& in, std::int64_t j, float& x) const {
    std::int64_t const r = rows.index_of(in);
    if (!seen.has(r, rows.order(r, j))) x = score;
  }
};

/// Takes them out of what a row may keep, once it is scored; nothing where rows see all of their past.
/// Cost     O(log N) a row, of scattered rows O(N), and a look at every score; scratch 16 bytes a row.
template <class Context, class Evidence>
void leave_out(Context& ctx, Evidence const& e, score_rows& rows, bool shared) {
  if (e.sees.is_whole() || rows.count() == 0) return;
  frame scratch(ctx.scratch());
  sights const of{scratch.template allocate<sight>(rows.count()), scratch.template allocate<sight>(rows.count())};
  using view = std::remove_cvref_t<decltype(e.cache)>;
  capability const must = e.cache.demands();
  kernels::each_sequence(ctx, rows, count_seen<view>{e.cache, e.sees, rows, of});
  row_pools const pools(rows, must.equal_layers ? pool_over::layers : pool_over::heads);
  kernels::each_sequence(ctx, rows, cut_to_room{rows, pools, must.equal_counts, shared});
  kernels::each_token(ctx, rows, put_last{rows, of});
}

constexpr std::int64_t bytes(cache_shape const& s) { return 2 * scratch_step(s.rows() * 8); }

}  // namespace unseen
}  // namespace KVEVICT_ABI
}  // namespace kvevict
