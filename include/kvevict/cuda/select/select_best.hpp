// SPDX-License-Identifier: Apache-2.0
// From scores to a keep set on a device: the best of every row, in the one total order.
#pragma once

#include <kvevict/cuda/context/keep_set.hpp>
#include <kvevict/cuda/evidence/rows.hpp>
#include <kvevict/cuda/select/row_keys.hpp>
#include <kvevict/cuda/select/write_best.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

void has_kernel(kernels::select_best_tag, device&);

/// One block per row: three histogram passes over its scores, then one that writes the kept tokens in order. Any block
/// of whole warps.
///
/// Shapes   scores (B·H, N) → tokens (B·H, stride), counts, lengths (B·H).
template <class Keys> struct select_best_kernel {
  static constexpr int max_threads = 1024;
  watched watch;
  score_rows s;
  keep_arrays to;
  // keys that the launch's shared bytes hold: no row is longer, and the scores are read once; 0: none
  std::uint32_t held;

  /// A row's keys up to here are held by a block of a device that has so many shared bytes.
  static constexpr std::int64_t most_held(std::size_t shared) {
    return static_cast<std::int64_t>(
        (shared - shared_bytes<std::uint32_t>(radix::buckets) - shared_bytes<std::uint32_t>(36)) / 16 * 4);
  }

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (watch.stopped(t)) return;
    KVEVICT_SHARED(t, std::uint32_t, histogram, radix::buckets);
    KVEVICT_SHARED(t, std::uint32_t, words, 36);
    std::int64_t const r = t.block().x;
    row const it = s.rows[r];
    std::int32_t const kept = it.active ? it.budget : it.tokens;
    if (t.linear_index() == 0) to.lengths[r] = it.tokens, to.counts[r] = kept;
    std::int32_t* const out = to.tokens + r * to.stride;
    if (kept == it.tokens) return write_all(t, 0, it.tokens, out);
    select(t, Keys(s, r), it, out, histogram, words);
  }

 private:
  KVEVICT_DEVICE static void write_all(thread& t, std::int32_t from, std::int32_t n, std::int32_t* out) {
    for (auto j = static_cast<std::int32_t>(t.linear_index()); j < n; j += static_cast<std::int32_t>(t.block_size().x))
      out[j] = from + j;
  }

  /// In order: protected tokens are the row's ends, and the first ties are the oldest.
  template <bool Held>
  KVEVICT_DEVICE void select(thread& t, ordered_keys<Held> v, row const& it, std::int32_t* out,
                             std::uint32_t* histogram, std::uint32_t* words) const {
    auto const first = static_cast<std::int32_t>(v.first), last = static_cast<std::int32_t>(v.last);
    write_all(t, 0, first, out);
    write_all(t, last, it.tokens - last, out + it.budget - (it.tokens - last));
    if (it.quota() == 0) return;
    if (Held) v.held = t.shared<std::uint32_t>(held);
    radix::cut const c = radix::best(
        t, [&](int turn, auto f) { v.for_each(t, 0, v.last, turn, [&](std::uint32_t key, std::int32_t) { f(key); }); },
        static_cast<std::uint32_t>(it.quota()), histogram, words);
    best_writer<Held>{v, c.key, c.equal - c.take, out + first, histogram}(t);
  }

  KVEVICT_DEVICE void select(thread& t, scattered_keys v, row const& it, std::int32_t* out, std::uint32_t* histogram,
                             std::uint32_t* words) const {
    if (held != 0 && it.quota() != 0) v.hold(t, t.shared<std::uint32_t>(held));
    write(t, v,
          it.quota() == 0 ? order{~0u, ~0u, ~0u}
                          : find_order(t, v, static_cast<std::uint32_t>(it.quota()), histogram, words),
          out, words);
  }

  /// Evictable tokens stay when (score, order) > (key, order); of those that equal both, all but the first `dropped`.
  struct order {
    std::uint32_t key, order, dropped;
  };
  static constexpr std::uint32_t run = 4;  // neighbouring tokens of a thread

  KVEVICT_DEVICE static order find_order(thread& t, scattered_keys const& v, std::uint32_t quota,
                                         std::uint32_t* histogram, std::uint32_t* words) {
    radix::cut const c = radix::best(
        t, [&](int turn, auto f) { v.for_each(t, 0, ~0u, turn, [&](std::uint32_t key, std::int32_t) { f(key); }); },
        quota, histogram, words);
    if (c.take == c.equal) return {c.key, 0, 0};
    radix::cut const p = radix::best(
        t,
        [&](int turn, auto f) {
          v.for_each(t, 0, ~0u, turn, [&](std::uint32_t key, std::int32_t order) {
            if (key == c.key) f(order_key(order));
          });
        },
        c.take, histogram, words);
    return {c.key, p.key, p.equal - p.take};
  }

  KVEVICT_DEVICE static void write(thread& t, scattered_keys const& v, order const& o, std::int32_t* out,
                                   std::uint32_t* words) {
    std::uint32_t sure = 0, ties = 0;  // before this round
    for (std::uint32_t first = 0; first < v.tokens; first += t.block_size().x * run) {
      std::uint32_t const from = first + t.linear_index() * run;
      std::uint32_t stay = 0, tie = 0, key[run];  // bit i: token from + i
      std::int32_t order[run];
      v.read(from, 1, v.tokens, key, order);
      KVEVICT_UNROLL
      for (std::uint32_t i = 0; i < run; ++i) {
        bool const here = from + i < v.tokens, competes = here && v.evictable(order[i]);
        std::uint32_t const age = o.order == 0 ? 0 : order_key(order[i]);
        stay |= static_cast<std::uint32_t>(here && (!competes || key[i] > o.key || (key[i] == o.key && age > o.order)))
                << i;
        tie |= static_cast<std::uint32_t>(competes && key[i] == o.key && age == o.order) << i;
      }
      // at most 4096 each
      block_sum const sum(t, static_cast<std::uint32_t>(count_bits(stay) | count_bits(tie) << 16), words);
      std::uint32_t mine = sure + (sum.before & 0xffffu), before = ties + (sum.before >> 16);
      for (std::uint32_t i = 0; i < run; ++i) {
        if ((tie >> i & 1) != 0 ? before < o.dropped : (stay >> i & 1) == 0) {
          before += tie >> i & 1;
          continue;
        }
        out[mine + (before > o.dropped ? before - o.dropped : 0)] = static_cast<std::int32_t>(from + i);
        if ((tie >> i & 1) != 0)
          ++before;
        else
          ++mine;
      }
      sure += sum.all & 0xffffu, ties += sum.all >> 16;
    }
  }
};

/// One launch, a block per row, into rows that have room.
inline void select_rows(device& ctx, score_rows const& s, keep_arrays const& to) {
  bool const fits = s.most_tokens <= select_best_kernel<scattered_keys>::most_held(ctx.block_shared_bytes());
  std::uint32_t const held = fits ? static_cast<std::uint32_t>((s.most_tokens + 3) / 4 * 4) : 0;
  auto const launch = [&](auto kernel) {
    ctx.launch({static_cast<std::uint32_t>(s.count())}, {threads_for(s.most_tokens, 4)},
               shared_bytes<std::uint32_t>(held), kernel);
  };
  if (s.positions != nullptr) return launch(select_best_kernel<scattered_keys>{ctx.watch(), s, to, held});
  expect_vectors(s);
  if (fits)
    launch(select_best_kernel<ordered_keys<true>>{ctx.watch(), s, to, held});
  else
    launch(select_best_kernel<ordered_keys<false>>{ctx.watch(), s, to, 0});
}

/// Protected tokens and the quota() best evictable ones of each active row, ascending; inactive rows keep all.
///
///   order   score descending (−0 = +0), position descending; rows in no order: of equal positions the larger token
///   index first
///
/// Cost     one launch, a block per row. One read of the scores where a block's shared memory holds the longest row (56
///          000 tokens on an H100, 39 600 on an A100, 23 200 everywhere); longer rows: four. Rows in no order read
///          their positions as often as keys, and three times more when ties are cut.
inline void kernel(kernels::select_best_tag, device& ctx, score_rows const& s, keep_set& out) {
  select_rows(ctx, s, out.resize(ctx, s.sequences, s.heads, s.most_tokens));
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
