// SPDX-License-Identifier: Apache-2.0
// What an engine's allocator knows of its pages, as far as an eviction must know it.
#pragma once

#include <concepts>
#include <cstdint>

#include <kvevict/core/slice.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// Pages are named as in the table, tag bits stripped.
///
///   references(page)   rows of tables that name it, those of the view included
///   published(page)    others may find it by what it holds (a prefix hash, a radix tree), now or later
///   acquire()          std::optional or the like: a page that nobody has, now with one reference; or nothing
///   release(page)      drops one reference; it cannot fail
///
/// A page with one reference that is not published, beyond the read-only prefix, may be written; no other is.
template <class Ledger, class Entry>
concept page_ledger = requires(Ledger& ledger, Entry page) {
  { ledger.references(page) } -> std::convertible_to<std::int64_t>;
  { ledger.published(page) } -> std::convertible_to<bool>;
  static_cast<bool>(ledger.acquire());
  { *ledger.acquire() } -> std::convertible_to<Entry>;
  { ledger.release(page) }
  noexcept;
};

namespace moves {

/// Pages that a call has taken, given back unless it comes to its end.
template <class Entry, class Ledger> class taken_pages {
 public:
  taken_pages(Ledger& from, Entry* room) : from_(from), pages_(room) {}
  taken_pages(taken_pages const&) = delete;
  taken_pages& operator=(taken_pages const&) = delete;
  ~taken_pages() {
    while (size_ > 0) from_.release(pages_[--size_]);
  }

  bool take() {
    auto const page = from_.acquire();
    if (page) pages_[size_++] = *page;
    return static_cast<bool>(page);
  }
  slice<Entry const> pages() const { return {pages_, size_}; }
  void keep() { size_ = 0; }

 private:
  Ledger& from_;
  Entry* pages_;
  std::int64_t size_ = 0;
};

}  // namespace moves
}  // namespace KVEVICT_ABI
}  // namespace kvevict
