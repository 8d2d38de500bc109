// SPDX-License-Identifier: Apache-2.0
// From scores to a keep set on a device: the best of every row, in the one total order.
#pragma once

#include <kvevict/cuda/keep_set.hpp>
#include <kvevict/cuda/row_keys.hpp>
#include <kvevict/cuda/rows.hpp>

namespace kvevict {
inline namespace v0 {
namespace cuda {

/// One block per row: three histogram passes over its scores, then one that writes the kept tokens in order. Any block of whole warps.
struct select_best_kernel {
  static constexpr int max_threads = 1024;
  static constexpr std::uint32_t run = 4;  // neighbouring tokens of a thread
  watched watch;
  score_rows s;
  std::int32_t *tokens, *counts, *lengths;
  std::int64_t stride;
  std::uint32_t held;  // keys that the launch's shared bytes hold: no row is longer, and the scores are read once; 0: none

  /// A row's keys up to here are held. With its other arrays a block stays below 99 KiB, which every device from sm_80 on has.
  static constexpr std::int64_t most_held = (88 << 10) / 4;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (watch.stopped(t)) return;
    KVEVICT_SHARED(t, std::uint32_t, histogram, radix::buckets);
    KVEVICT_SHARED(t, std::uint32_t, words, 36);
    std::int64_t const r = t.block().x;
    row const it = s.rows[r];
    std::int32_t const quota = it.quota(), kept = it.active ? it.budget : it.tokens;
    if (t.rank() == 0) lengths[r] = it.tokens, counts[r] = kept;
    std::int32_t* const out = tokens + r * stride;
    if (kept == it.tokens) return write_all(t, it.tokens, out);
    row_keys v(s, r);
    if (held != 0 && quota != 0) {
      auto* const keys = t.shared<std::uint32_t>(held);
      v.for_each(t, 0, it.tokens, [&](std::int32_t j, std::uint32_t key, std::int32_t) { keys[j] = key; });
      v.held = keys;  // others read them behind the barriers of `find_order`
    }
    order const o = quota == 0 ? order{~0u, ~0u, ~0u} : find_order(t, v, static_cast<std::uint32_t>(quota), histogram, words);
    write(t, v, o, out, words);
  }

 private:
  /// Evictable tokens stay when (score, rank) > (key, rank); of those that equal both, all but the first `dropped`.
  struct order {
    std::uint32_t key, rank, dropped;
  };

  KVEVICT_DEVICE static order find_order(thread& t, row_keys const& v, std::uint32_t quota, std::uint32_t* histogram, std::uint32_t* words) {
    radix::cut const c = radix::best(t, [&](auto f) {
      v.for_each(t, 0, v.tokens, [&](std::int32_t, std::uint32_t key, std::int32_t) { f(key); });
    }, quota, histogram, words);
    if (v.positions == nullptr || c.take == c.equal) return {c.key, 0, c.equal - c.take};  // in order, the first ties are the oldest
    radix::cut const p = radix::best(t, [&](auto f) {
      v.for_each(t, 0, v.tokens, [&](std::int32_t, std::uint32_t key, std::int32_t rank) { if (key == c.key) f(radix::key(rank)); });
    }, c.take, histogram, words);
    return {c.key, p.key, p.equal - p.take};
  }

  KVEVICT_DEVICE static void write_all(thread& t, std::int32_t n, std::int32_t* out) {
    for (auto j = static_cast<std::int32_t>(t.rank()); j < n; j += static_cast<std::int32_t>(t.block_size().x)) out[j] = j;
  }
  KVEVICT_DEVICE static void write(thread& t, row_keys const& v, order const& o, std::int32_t* out, std::uint32_t* words) {
    std::uint32_t sure = 0, ties = 0;  // before this round
    for (std::int32_t first = 0; first < v.tokens; first += static_cast<std::int32_t>(t.block_size().x * run)) {
      std::int32_t const from = first + static_cast<std::int32_t>(t.rank() * run);
      std::uint32_t stay = 0, tie = 0, key[run];  // bit i: token from + i
      std::int32_t rank[run];
      v.read(from, 1, v.tokens, key, rank);
      KVEVICT_UNROLL
      for (std::uint32_t i = 0; i < run; ++i) {
        bool const here = from + static_cast<std::int32_t>(i) < v.tokens, competes = here && v.evictable(rank[i]);
        std::uint32_t const age = v.positions == nullptr || o.rank == 0 ? 0 : radix::key(rank[i]);
        stay |= static_cast<std::uint32_t>(here && (!competes || key[i] > o.key || (key[i] == o.key && age > o.rank))) << i;
        tie |= static_cast<std::uint32_t>(competes && key[i] == o.key && age == o.rank) << i;
      }
      block_sum const sum(t, static_cast<std::uint32_t>(count_bits(stay) | count_bits(tie) << 16), words);  // at most 4096 each
      std::uint32_t mine = sure + (sum.before & 0xffffu), before = ties + (sum.before >> 16);
      for (std::uint32_t i = 0; i < run; ++i) {
        if ((tie >> i & 1) != 0 ? before < o.dropped : (stay >> i & 1) == 0) { before += tie >> i & 1; continue; }
        out[mine + (before > o.dropped ? before - o.dropped : 0)] = from + static_cast<std::int32_t>(i);
        if ((tie >> i & 1) != 0) ++before;
        else ++mine;
      }
      sure += sum.all & 0xffffu, ties += sum.all >> 16;
    }
  }
};

/// Protected tokens and the quota() best evictable ones of each active row, ascending; inactive rows keep all.
///
///   order   score descending (−0 = +0), position descending; rows in no order: of equal positions the larger token index first
///
/// Cost     one launch, a block per row. Rows of up to 22 528 tokens: one read of the scores; longer ones: four. Rows in no order read their
///          positions as often as keys, and three times more when ties are cut.
inline void kernel(kernels::select_best_tag, device& ctx, score_rows const& s, keep_set& out) {
  out.resize(ctx, s.sequences, s.heads, s.most_tokens);
  std::uint32_t const held = s.most_tokens <= select_best_kernel::most_held ? static_cast<std::uint32_t>(s.most_tokens) : 0;
  ctx.launch({static_cast<std::uint32_t>(s.count())}, {threads_for(s.most_tokens, select_best_kernel::run)}, shared_bytes<std::uint32_t>(held),
             select_best_kernel{ctx.watch(), s, out.tokens, out.counts, out.lengths, out.stride, held});
}

}  // namespace cuda
}  // namespace v0
}  // namespace kvevict
