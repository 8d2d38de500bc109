// SPDX-License-Identifier: Apache-2.0
// The best tokens over all heads of every sequence, as counts per head: what head budgets are made of, on a device.
#pragma once

#include <kvevict/cuda/row_keys.hpp>
#include <kvevict/cuda/rows.hpp>

namespace kvevict {
inline namespace v0 {
namespace cuda {
namespace pooled {

/// Where a sequence's best end, so far: digits of the score's key, then, among the `equal` scores, of the rank's.
struct search {
  std::uint32_t key, rank;
  std::uint32_t take, equal;  // of the keys that share the digits found so far: how many are in, and how many there are
  bool active, tied;          // tied: ranks decide
};

/// The best tokens of a head that are forced in: those above (key, rank), or equal to it.
struct forced_cut { std::uint32_t key, rank; };

inline constexpr std::uint32_t chunk = 4096;  // tokens of a block

/// All that the launches share. Scratch: a histogram per row, a search per sequence, a cut per row.
struct work {
  watched watch;
  score_rows s;
  pooled_best what;
  std::uint32_t* histograms;  // (B·H, buckets)
  search* searches;           // (B)
  forced_cut* forced;         // (B·H), or null
  std::int32_t* counts;       // (B·H)
  std::uint32_t chunks;

  KVEVICT_DEVICE slice<row> heads_of(std::int64_t b) const { return {s.rows + b * s.heads, s.heads}; }
  /// What is known of a sequence before that digit.
  KVEVICT_DEVICE search before(std::int64_t b, int digit, bool ranks) const {
    if (ranks || digit > 0) return searches[b];
    auto const quota = static_cast<std::uint32_t>(pooled_quota(heads_of(b)));
    return {0, short_ranks() ? radix::key(0) : 0, quota, 0, heads_of(b)[0].active && quota > 0, false};
  }
  /// Ranks of rows in order are below 2^21, but for longer rows: the leading digit is known.
  constexpr bool short_ranks() const { return s.positions == nullptr && s.most_tokens <= 1 << 21; }
  KVEVICT_DEVICE std::int64_t forced_of(std::int64_t b) const { return what.forced_permille * (pooled_quota(heads_of(b)) / s.heads) / 1000; }
  template <class Keys> KVEVICT_DEVICE Keys keys(std::int64_t r) const {
    Keys out(s, r);
    if (what.weights != nullptr) out.weight = what.weights[r % s.heads];
    return out;
  }
};

/// One block per row: the cut of its forced tokens.
template <class Keys> struct force_kernel {
  static constexpr int max_threads = 1024;
  work w;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (w.watch.stopped(t)) return;
    KVEVICT_SHARED(t, std::uint32_t, histogram, radix::buckets);
    KVEVICT_SHARED(t, std::uint32_t, words, 36);
    std::int64_t const r = t.block().x;
    row const& it = w.s.rows[r];
    std::int64_t const wanted = w.forced_of(r / w.s.heads), k = wanted < it.candidates ? wanted : it.candidates;
    if (!it.active || k == 0) {
      if (t.rank() == 0) w.forced[r] = {~0u, ~0u};
      return;
    }
    Keys const v = w.template keys<Keys>(r);
    auto const end = static_cast<std::uint32_t>(it.tokens);
    radix::cut const c = radix::best(t, [&](int turn, auto f) {
      v.for_each(t, 0, end, turn, [&](std::uint32_t key, std::int32_t) { f(key); });
    }, static_cast<std::uint32_t>(k), histogram, words);
    std::uint32_t rank = 0;
    if (c.take < c.equal)
      rank = radix::best(t, [&](int turn, auto f) {
        v.for_each(t, 0, end, turn, [&](std::uint32_t key, std::int32_t of) { if (key == c.key) f(radix::key(of)); });
      }, c.take, histogram, words).key;
    if (t.rank() == 0) w.forced[r] = {c.key, rank};
  }
};

/// One digit's histogram of every row. Grid: (row, 4096 tokens).
template <class Keys> struct histogram_kernel {
  static constexpr int max_threads = 256;
  work w;
  int digit;
  bool ranks;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (w.watch.stopped(t)) return;
    std::int64_t const r = t.block().x / w.chunks;
    std::uint32_t const first = t.block().x % w.chunks * chunk;
    row const& it = w.s.rows[r];
    search const f = w.before(r / w.s.heads, digit, ranks);
    if (!f.active || f.tied != ranks || !it.active || first >= static_cast<std::uint32_t>(it.tokens)) return;
    KVEVICT_SHARED(t, std::uint32_t, counts, radix::buckets);
    for (std::uint32_t i = t.rank(); i < radix::buckets; i += t.block_size().x) counts[i] = 0;
    t.sync_block();
    count(t, r, first, f, counts);
    t.sync_block();
    for (std::uint32_t i = t.rank(); i < radix::buckets; i += t.block_size().x)
      if (counts[i] != 0) atomic_add(t, &w.histograms[r * radix::buckets + i], counts[i]);
  }

 private:
  KVEVICT_DEVICE void count(thread& t, std::int64_t r, std::uint32_t first, search const& f, std::uint32_t* counts) const {
    radix::digit const d = radix::nth_digit(digit);
    forced_cut const best = w.forced == nullptr ? forced_cut{~0u, ~0u} : w.forced[r];
    std::uint32_t const found = ranks ? f.rank : f.key;
    bool finite = true;
    w.template keys<Keys>(r).for_each(t, first, first + chunk, 0, [&](std::uint32_t key, std::int32_t at) {
      finite = finite && radix::is_finite(key);
      std::uint32_t const rank = radix::key(at);
      if (key > best.key || (key == best.key && rank >= best.rank)) key = ~0u;  // forced in: beyond all
      if (ranks && key != f.key) return;
      std::uint32_t const x = ranks ? rank : key;
      if (d.follows(x, found)) atomic_add(t, &counts[d.of(x)], 1u);
    });
    if (!finite && digit == 0 && !ranks) w.watch.refuse(t, fault::weighted_score, w.s.rows[r].sequence, w.s.rows[r].head);
  }
};

/// One block per sequence: the digit's boundary over all its heads; what lies behind it is counted, and the histograms are cleared for the next.
struct boundary_kernel {
  static constexpr int max_threads = 512;
  work w;
  int digit;
  bool ranks;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (w.watch.stopped(t)) return;
    KVEVICT_SHARED(t, std::uint32_t, totals, radix::buckets);
    KVEVICT_SHARED(t, std::uint32_t, words, 36);
    std::int64_t const b = t.block().x;
    search f = w.before(b, digit, ranks);
    if (!f.active || f.tied != ranks) {
      if (t.rank() == 0 && digit == 0 && !ranks) w.searches[b] = f;
      return;
    }
    std::uint32_t* const own = w.histograms + b * w.s.heads * radix::buckets;
    for (std::uint32_t i = t.rank(); i < radix::buckets; i += t.block_size().x) {
      std::uint32_t sum = 0;
      for (std::int64_t h = 0; h < w.s.heads; ++h) sum += own[h * radix::buckets + i];
      totals[i] = sum;
    }
    t.sync_block();
    radix::boundary const at = radix::find_boundary(t, totals, f.take, words);
    (ranks ? f.rank : f.key) |= at.bucket << radix::nth_digit(digit).shift, f.take -= at.above, f.equal = at.inside;
    for (std::int64_t h = t.warp(); h < w.s.heads; h += t.block_size().x / warp_size) {  // a warp per head
      std::uint32_t sum = 0;
      for (std::uint32_t i = at.bucket + 1 + t.lane(); i < radix::buckets; i += warp_size) sum += own[h * radix::buckets + i];
      for (std::uint32_t x = warp_size / 2; x != 0; x /= 2) sum += shuffle_xor(t, sum, x);
      if (t.lane() == 0) w.counts[b * w.s.heads + h] += static_cast<std::int32_t>(sum);
    }
    t.sync_block();
    if (t.rank() == 0) finish(b, f, at.bucket, own);
    t.sync_block();
    for (std::int64_t i = t.rank(); i < std::int64_t{w.s.heads} * radix::buckets; i += t.block_size().x) own[i] = 0;
  }

 private:
  KVEVICT_DEVICE void finish(std::int64_t b, search f, std::uint32_t bucket, std::uint32_t const* own) const {
    if (digit == radix::digit_count - 1 && !ranks && f.take < f.equal) f.tied = true;  // ranks decide which
    else if (digit == radix::digit_count - 1) {
      for (std::int64_t h = 0; h < w.s.heads; ++h) {  // what is equal in score and rank: lower heads first
        std::uint32_t const here = own[h * radix::buckets + bucket], in = here < f.take ? here : f.take;
        w.counts[b * w.s.heads + h] += static_cast<std::int32_t>(in);
        f.take -= in;
      }
      f.active = false;
    }
    w.searches[b] = f;
  }
};

template <class Keys> void count(device& ctx, work const& w) {
  auto const rows = static_cast<std::uint32_t>(w.s.count()), sequences = static_cast<std::uint32_t>(w.s.sequences);
  std::uint32_t const threads = threads_for(w.s.most_tokens, 4);
  if (w.forced != nullptr) ctx.launch({rows}, {threads}, 0, force_kernel<Keys>{w});
  ctx.zero(w.histograms, static_cast<std::size_t>(w.s.count()) * radix::buckets * sizeof *w.histograms);
  for (bool const ranks : {false, true})
    for (int digit = ranks && w.short_ranks() ? 1 : 0; digit < radix::digit_count; ++digit) {
      ctx.launch({rows * w.chunks}, {std::min(256u, threads)}, 0, histogram_kernel<Keys>{w, digit, ranks});
      ctx.launch({sequences}, {std::min(512u, threads)}, 0, boundary_kernel{w, digit, ranks});
    }
  ctx.settle();
}

}  // namespace pooled

/// Of the Σ quota() best evictable tokens of every sequence that is cut: how many lie in each head.
///
///   order   score·weight descending (−0 = +0), position descending, head ascending; the forced best of every head come first
///
/// Cost     three reads of the scores, two more where ties are cut (three in rows in no order); 10 launches (12), 11 (13) with forced ones; 8 KiB a row.
/// Errors   fault::weighted_score: a weighted score is not finite.   Positions of a row are distinct.
inline void kernel(kernels::count_pooled_tag, device& ctx, score_rows const& s, pooled_best const& what, std::int32_t* counts) {
  ctx.zero(counts, static_cast<std::size_t>(s.count()) * sizeof *counts);
  if (s.count() == 0) return;
  frame scratch(ctx.scratch());
  pooled::work const w{ctx.watch(), s, what, scratch.take<std::uint32_t>(s.count() * radix::buckets), scratch.take<pooled::search>(s.sequences),
                       what.forced_permille == 0 ? nullptr : scratch.take<pooled::forced_cut>(s.count()), counts, blocks_for(s.most_tokens, pooled::chunk)};
  if (s.positions != nullptr) return pooled::count<scattered_keys>(ctx, w);
  expect_vectors(s);
  pooled::count<ordered_keys<false>>(ctx, w);
}

}  // namespace cuda
}  // namespace v0
}  // namespace kvevict
