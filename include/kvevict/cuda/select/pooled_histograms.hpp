// SPDX-License-Identifier: Apache-2.0
// What is counted in a row for head budgets: a digit's histogram, and where its forced tokens end.
#pragma once

#include <kvevict/cuda/evidence/rows.hpp>
#include <kvevict/cuda/select/row_keys.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {
namespace pooled {

/// Where a pool's best end, so far: digits of the score's key, then, among the `equal` scores, of the order's.
struct search {
  std::uint32_t key, order;
  std::uint32_t take, equal;  // of the keys that share the digits found so far: how many are in, and how many there are
  bool active, tied;          // tied: orders decide
};

/// The best tokens of a row that are forced in: those above (key, order), or equal to it.
struct forced_cut {
  std::uint32_t key, order;
};

inline constexpr std::uint32_t chunk = 4096;  // tokens of a block

/// All that the launches share. Scratch: a histogram per row, a search per pool, a cut per row.
struct work {
  watched watch;
  score_rows s;
  pooled_best what;
  std::uint32_t* histograms;  // (B·H, buckets)
  search* searches;           // (pools)
  forced_cut* forced;         // (B·H), or null
  std::int32_t* counts;       // (B·H)
  std::uint32_t chunks;
  row_pools pools{s, what.over};

  KVEVICT_DEVICE pool_quota quota(std::int64_t pool) const { return {s, pools, pool}; }
  /// What is known of a pool before that digit.
  KVEVICT_DEVICE search before(std::int64_t pool, int digit, bool orders) const {
    if (orders || digit > 0) return searches[pool];
    auto const tokens = static_cast<std::uint32_t>(quota(pool).tokens);
    return {0, short_ranks() ? order_key(0) : 0, tokens, 0, tokens > 0, false};
  }
  /// Ranks of rows in order are below 2^21, but for longer rows: the leading digit is known.
  constexpr bool short_ranks() const { return s.positions == nullptr && s.most_tokens <= 1 << 21; }
  /// Of a pool with a row that is cut.
  KVEVICT_DEVICE std::int64_t forced_of(std::int64_t pool) const {
    pool_quota const all = quota(pool);
    return what.forced_permille * (all.tokens / all.rows) / 1000;
  }
  template <class Keys> KVEVICT_DEVICE Keys keys(std::int64_t r) const {
    Keys out(s, r);
    if (what.weights != nullptr) out.weight = what.weights[r % s.heads];
    return out;
  }
};

/// One block per row: the cut of its forced tokens.
///
/// Shapes   scores (B·H, N) → cuts (B·H).
template <class Keys> struct force_kernel {
  static constexpr int max_threads = 1024;
  work c;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (c.watch.stopped(t)) return;
    KVEVICT_SHARED(t, std::uint32_t, histogram, radix::buckets);
    KVEVICT_SHARED(t, std::uint32_t, words, 36);
    std::int64_t const r = t.block().x;
    row const& it = c.s.rows[r];
    std::int64_t const wanted = it.active ? c.forced_of(c.pools.pool_of(r)) : 0,
                       k = wanted < it.room() ? wanted : it.room();
    if (k == 0) {
      if (t.linear_index() == 0) c.forced[r] = {~0u, ~0u};
      return;
    }
    Keys const v = c.template keys<Keys>(r);
    auto const end = static_cast<std::uint32_t>(it.tokens);
    radix::cut const cut = radix::best(
        t, [&](int turn, auto f) { v.for_each(t, 0, end, turn, [&](std::uint32_t key, std::int32_t) { f(key); }); },
        static_cast<std::uint32_t>(k), histogram, words);
    std::uint32_t order = 0;
    if (cut.take < cut.equal)
      order = radix::best(
                  t,
                  [&](int turn, auto f) {
                    v.for_each(t, 0, end, turn, [&](std::uint32_t key, std::int32_t of) {
                      if (key == cut.key) f(order_key(of));
                    });
                  },
                  cut.take, histogram, words)
                  .key;
    if (t.linear_index() == 0) c.forced[r] = {cut.key, order};
  }
};

/// One digit's histogram of every row. Grid: (row, 4096 tokens).
///
/// Shapes   scores (B·H, N), searches (pools) → histograms (B·H, buckets).
template <class Keys> struct histogram_kernel {
  static constexpr int max_threads = 256;
  work c;
  int digit;
  bool orders;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (c.watch.stopped(t)) return;
    std::int64_t const r = t.block().x / c.chunks;
    std::uint32_t const first = t.block().x % c.chunks * chunk;
    row const& it = c.s.rows[r];
    search const f = digit == 0 && !orders ? search{0, 0, 0, 0, true, false} : c.searches[c.pools.pool_of(r)];
    if (!f.active || f.tied != orders || !it.active || first >= static_cast<std::uint32_t>(it.tokens)) return;
    KVEVICT_SHARED(t, std::uint32_t, counts, radix::buckets);
    for (std::uint32_t i = t.linear_index(); i < radix::buckets; i += t.block_size().x) counts[i] = 0;
    t.sync_block();
    count(t, r, first, f, counts);
    t.sync_block();
    for (std::uint32_t i = t.linear_index(); i < radix::buckets; i += t.block_size().x)
      if (counts[i] != 0) atomic_add(t, &c.histograms[r * radix::buckets + i], counts[i]);
  }

 private:
  KVEVICT_DEVICE void count(thread& t, std::int64_t r, std::uint32_t first, search const& f,
                            std::uint32_t* counts) const {
    Keys const keys = c.template keys<Keys>(r);
    radix::digit const d = radix::nth_digit(digit);
    forced_cut const best = c.forced == nullptr ? forced_cut{~0u, ~0u} : c.forced[r];
    std::uint64_t const best_of_all = std::uint64_t{best.key} << 32 | best.order;
    // beyond all
    auto const forced = [&](std::uint32_t key, std::uint32_t order) {
      return (std::uint64_t{key} << 32 | order) >= best_of_all ? ~0u : key;
    };
    auto const each = [&](auto use) {
      keys.for_each(t, first, first + chunk, 0,
                    [&](std::uint32_t key, std::int32_t order) { use(key, order_key(order)); });
    };
    bool finite = keys.weight >= 0;
    if (orders)
      each([&](std::uint32_t key, std::uint32_t order) {
        if (forced(key, order) == f.key && d.follows(order, f.order)) atomic_add(t, &counts[d.of(order)], 1u);
      });
    else if (digit == 0)
      each([&](std::uint32_t key, std::uint32_t order) {
        finite = finite && is_key_of_finite(key);
        atomic_add(t, &counts[radix::nth_digit(0).of(forced(key, order))], 1u);
      });
    else
      each([&](std::uint32_t key, std::uint32_t order) {
        std::uint32_t const x = forced(key, order);
        if (d.follows(x, f.key)) atomic_add(t, &counts[d.of(x)], 1u);
      });
    if (!finite) c.watch.refuse(t, fault::weighted_score, c.s.rows[r].sequence, c.s.rows[r].head);
  }
};

}  // namespace pooled
}  // namespace kvevict::inline KVEVICT_ABI::cuda
