// SPDX-License-Identifier: Apache-2.0
// Which cache a keep set or a move plan is for, so that an older one is not taken for it.
#pragma once

#include <cstdint>

#include <kvevict/cache/tables.hpp>
#include <kvevict/core/contract.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// Beside the lengths, which keep sets and move plans have themselves: what was at hand when they were made. Filled in
/// by `plan` and `plan_moves`, compared by every verb that takes one.
struct fingerprint {
  std::uint64_t epoch = 0;  // layer_view::epoch; 0: not compared
  std::uint64_t table = 0;  // a hash of the pages in use; 0: not compared, as in a keep set that you fill yourself
};

/// Of one table.
template <class Entry> std::uint64_t hash_of_pages(layer_view<Entry> const& v) {
  auto const mix = [](std::uint64_t place, std::uint64_t entry) {
    std::uint64_t x = entry + place * 0x9e3779b97f4a7c15u;  // then splitmix64's end: sums of its words do not meet
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
  };
  page_table<Entry> const& t = v.pages;
  std::uint64_t sum = mix(1, static_cast<std::uint64_t>(t.page_size)), place = 2;
  for (std::int64_t row = 0; row < t.rows() && v.heads() != 0 && !t.is_identity(); ++row) {
    std::int64_t const r = t.per_head() ? row : row * v.heads();
    auto const b = static_cast<std::int32_t>(r / v.heads()), h = static_cast<std::int32_t>(r % v.heads());
    std::int64_t const pages = (std::int64_t{v.length(b, h)} + t.page_size - 1) / t.page_size;
    for (std::int64_t i = 0; i < pages; ++i) {
      auto const entry = t.entry(b, h, i);
      if constexpr (page_table<Entry>::holds_pointers)
        sum += mix(place++, reinterpret_cast<std::uintptr_t>(entry));
      else
        sum += mix(place++, static_cast<std::uint64_t>(entry));
    }
    sum += mix(place++, static_cast<std::uint64_t>(pages));
  }
  return sum;
}

/// A hash of the entries of all pages in use, in their places, in all tables; never 0. O(pages).
template <class Entry> std::uint64_t table_hash(layer_view<Entry> const& v) {
  std::uint64_t sum = 0;
  each_table(v, [&](layer_view<Entry> const& part) { sum = sum * 0x9e3779b97f4a7c15u + hash_of_pages(part); });
  return sum == 0 ? 1 : sum;
}

/// Of a view that validate() has accepted.
template <class Entry> fingerprint fingerprint_of(layer_view<Entry> const& v) { return {v.epoch, table_hash(v)}; }

namespace contract {

/// `what`: "keep set" or "move plan".
inline void expect_same(char const* verb, char const* what, fingerprint const& made_for, fingerprint const& now) {
  KVEVICT_EXPECTS(made_for.epoch == 0 || made_for.epoch == now.epoch, verb, ": the ", what, " was planned in epoch ",
                  made_for.epoch, " and the view is of epoch ", now.epoch, "; plan again after the cache has changed");
  KVEVICT_EXPECTS(made_for.table == 0 || made_for.table == now.table, verb,
                  ": the pages of the view are not those that the ", what,
                  " was planned on; plan again, or set made_for.table to 0 where the same tokens lie in other pages");
}

}  // namespace contract
}  // namespace KVEVICT_ABI
}  // namespace kvevict
