// SPDX-License-Identifier: Apache-2.0
// The candidates of all rows of a pool, and where the best of them end.
#pragma once

#include <cstdint>

#include <kvevict/core/fill.hpp>
#include <kvevict/core/order_key.hpp>
#include <kvevict/kernels/radix.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {
namespace select {

/// The candidates of one row while the cut is sought. Tokens that cannot win or lose any more leave `live`.
struct contender {
  std::uint32_t* keys;    // (M) of the scores, in order of the tokens
  std::uint32_t* live;    // (M) those in the boundary bucket
  std::uint32_t* counts;  // (copies, buckets)
  std::int32_t* orders;   // (M) positions; null: token index `first` + i
  std::int64_t size, live_size;
  std::int64_t above, equal;  // keys beyond the cut, keys that equal it
  std::int32_t first, forced;
  bool finite;

  std::int32_t order(std::int64_t i) const {
    return orders == nullptr ? first + static_cast<std::int32_t>(i) : orders[i];
  }
  /// Orders of the tokens whose key is `key`, to `live`.
  void collect_ties(std::uint32_t key) {
    live_size = 0;
    for (std::int64_t i = 0; i < size; ++i) {
      live[live_size] = order_key(order(i));
      live_size += keys[i] == key;
    }
  }
};

struct contenders {
  contender* rows;
  std::int64_t count;
  std::uint32_t* totals;  // (buckets)
  std::int64_t work;      // candidates of all rows

  /// Finds where the k best of all rows end, starting from `keys` or, for ties, from what is in `live`; adds up
  /// `above`, sets `equal`.
  template <class Context> radix::cut best(Context& ctx, std::int64_t k, bool from_keys) {
    std::uint32_t prefix = 0;
    for (radix::digit const d : radix::digits) {
      std::int64_t const buckets = std::int64_t{1} << d.width;
      bool const all = from_keys && d.shift == radix::digits[0].shift;
      ctx.for_each(
          count,
          [&](std::int64_t h, std::int32_t) {
            contender& c = rows[h];
            radix::count(all ? c.keys : c.live, all ? c.size : c.live_size, d, c.counts);
          },
          work);
      kvevict::copy_n(rows[0].counts, buckets, totals);
      for (std::int64_t h = 1; h < count; ++h)
        for (std::int64_t b = 0; b < buckets; ++b) totals[b] += rows[h].counts[b];
      radix::bucket const b = radix::boundary(totals, k, buckets);
      k -= b.above;
      prefix |= b.index << d.shift;
      ctx.for_each(
          count,
          [&](std::int64_t h, std::int32_t) {
            contender& c = rows[h];
            for (std::int64_t i = b.index + 1; i < buckets; ++i) c.above += c.counts[i];
            c.equal = c.counts[b.index];
            c.live_size = radix::gather(all ? c.keys : c.live, all ? c.size : c.live_size, d, b.index, c.live);
          },
          work);
    }
    return {prefix, k, totals[radix::digits[2].of(prefix)]};
  }
};

}  // namespace select
}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
