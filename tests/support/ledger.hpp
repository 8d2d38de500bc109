// SPDX-License-Identifier: Apache-2.0
// An engine's count of what refers to each page: the page_ledger of tests.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <vector>

#include <kvevict/cache/layer_view.hpp>

namespace support {

/// A published page stays where it is when nothing refers to it any more: another request may find it by its hash.
template <class Entry> struct ledger {
  std::map<Entry, std::int64_t> count;
  std::set<Entry> hash;
  std::vector<Entry> free;

  bool operator==(ledger const&) const = default;
  std::int64_t references(Entry page) const { return count.count(page) == 0 ? 0 : count.at(page); }
  bool published(Entry page) const { return hash.count(page) != 0; }
  std::optional<Entry> acquire() {
    if (free.empty()) return std::nullopt;
    Entry const page = free.back();
    free.pop_back(), ++count[page];
    return page;
  }
  void release(Entry page) noexcept {
    if (--count[page] != 0) return;
    count.erase(page);
    if (!published(page)) free.push_back(page);
  }
  bool writable(Entry page) const { return references(page) == 1 && !published(page); }

  /// A reference for every page that a table has and a token lies in, however often; f(page, its index in the row).
  template <class F> void refer(kvevict::layer_view<Entry> const& v, F f) {
    for (std::int32_t b = 0; b < v.sequences(); ++b)
      for (std::int32_t h = 0; h < (v.pages.per_head() ? v.heads() : 1); ++h)
        for (std::int64_t i = 0; i * v.pages.page_size < v.length(b, h); ++i) {
          ++count[v.pages.entry(b, h, i)];
          f(v.pages.entry(b, h, i), i);
        }
  }
};

}  // namespace support
