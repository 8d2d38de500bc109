// SPDX-License-Identifier: Apache-2.0
// A small engine that counts its pages: sequences with common prefixes, forks, pages in a prefix hash; beside it a
// plain list of what every token of every row must hold.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <set>
#include <type_traits>
#include <vector>

#include <kvevict/cache/layer_view.hpp>

#include "support/random.hpp"

namespace support {

/// A ledger of pages by number.
class page_counts {
 public:
  std::vector<std::int32_t> count;  // references
  std::vector<std::uint8_t> is_published;
  std::vector<std::int32_t> free;

  explicit page_counts(std::int32_t pages) : count(std::size_t(pages)), is_published(std::size_t(pages)) {
    free.reserve(std::size_t(pages));
    for (std::int32_t i = pages; i-- > 0;) free.push_back(i);
  }
  bool operator==(page_counts const&) const = default;

  std::int64_t references(std::int32_t page) const { return count[std::size_t(page)]; }
  bool published(std::int32_t page) const { return is_published[std::size_t(page)] != 0; }
  std::optional<std::int32_t> acquire() {
    if (free.empty()) return std::nullopt;
    std::int32_t const page = free.back();
    free.pop_back(), count[std::size_t(page)] = 1;
    return page;
  }
  void release(std::int32_t page) noexcept {
    if (--count[std::size_t(page)] == 0 && !published(page)) free.push_back(page);
  }

  bool writable(std::int32_t page) const { return references(page) == 1 && !published(page); }
};

/// One table for all heads of a sequence, or, `per_head`, one each into pages of one head.
template <class Entry> class paged_engine {
 public:
  static constexpr std::int32_t P = 4, H = 2;
  static constexpr std::int32_t widths[] = {8, 4, 4, 4};  // bytes of k, v, position, state

  struct token {
    std::uint32_t value;
    std::int32_t position;
    bool operator==(token const&) const = default;
  };
  struct sequence {
    std::vector<std::vector<std::int32_t>> tables;  // (1) or (H)
    std::vector<std::vector<token>> rows;           // (H)
    std::int32_t next_position = 0;
  };
  /// What the library asks.
  struct ledger_type {
    paged_engine* e;
    std::int64_t references(Entry p) const { return e->counts.references(e->number(p)); }
    bool published(Entry p) const { return e->counts.published(e->number(p)); }
    std::optional<Entry> acquire() {
      auto const page = e->counts.acquire();
      if (!page) return std::nullopt;
      return e->entry(*page);
    }
    void release(Entry p) noexcept { e->counts.release(e->number(p)); }
  };

  page_counts counts;
  std::vector<sequence> sequences;
  std::vector<std::byte> pool;
  ledger_type ledger{this};

  paged_engine(std::int32_t pages, bool heads_apart, std::uint64_t seed)
      : counts(pages), pool(std::size_t(pages) * page_bytes(heads_apart)), per_head_(heads_apart), random_(seed) {}
  paged_engine(paged_engine const&) = delete;

  bool per_head() const { return per_head_; }
  std::int32_t pages() const { return std::int32_t(counts.count.size()); }
  Entry entry(std::int32_t page) {
    if constexpr (std::is_pointer_v<Entry>)
      return pool.data() + std::size_t(page) * page_bytes(per_head_);
    else
      return page;
  }
  std::int32_t number(Entry p) const {
    if constexpr (std::is_pointer_v<Entry>)
      return std::int32_t(std::size_t(p - pool.data()) / page_bytes(per_head_));
    else
      return std::int32_t(p);
  }
  std::vector<std::byte> bytes_of(std::int32_t page) const {
    auto const from = pool.begin() + std::ptrdiff_t(std::size_t(page) * page_bytes(per_head_));
    return {from, from + std::ptrdiff_t(page_bytes(per_head_))};
  }
  std::int32_t length(sequence const& s, std::size_t table) const { return std::int32_t(s.rows[table].size()); }

  // What an engine does beside eviction. All of it leaves things as they are where pages are lacking.

  void start() {
    sequences.push_back({std::vector<std::vector<std::int32_t>>(tables()), {H, std::vector<token>{}}, 0});
  }

  /// One more token in every head; the engine itself copies a page that it may not write.
  bool append(sequence& s) {
    if (counts.free.size() < tables()) return false;
    for (std::size_t t = 0; t < tables(); ++t) {
      auto& table = s.tables[t];
      std::int32_t const n = length(s, t);
      if (n % P == 0) {
        table.push_back(*counts.acquire());
      } else if (!counts.writable(table.back())) {
        std::int32_t const fresh = *counts.acquire();
        auto const bytes = bytes_of(table.back());
        std::copy(bytes.begin(), bytes.end(),
                  pool.begin() + std::ptrdiff_t(std::size_t(fresh) * page_bytes(per_head_)));
        counts.release(table.back()), table.back() = fresh;
      }
    }
    for (std::int32_t h = 0; h < H; ++h) {
      auto& row = s.rows[std::size_t(h)];
      row.push_back({std::uint32_t(random_.bits()), s.next_position});
      write(s, h, std::int32_t(row.size()) - 1, row.back());
    }
    return ++s.next_position, true;
  }
  void fork(std::size_t of) {
    sequence const copy = sequences[of];
    for (auto const& table : copy.tables)
      for (std::int32_t const page : table) ++counts.count[std::size_t(page)];
    sequences.push_back(copy);
  }
  void publish(sequence const& s) {
    for (std::size_t t = 0; t < tables(); ++t)
      for (std::int32_t i = 0; i < length(s, t) / P; ++i)
        if (random_.below(2) != 0) counts.is_published[std::size_t(s.tables[t][std::size_t(i)])] = 1;
  }
  void forget_published() {
    for (std::int32_t page = 0; page < pages(); ++page) {
      if (!counts.published(page) || random_.below(2) != 0) continue;
      counts.is_published[std::size_t(page)] = 0;
      if (counts.references(page) == 0) counts.free.push_back(page);
    }
  }
  void end(std::size_t which) {
    for (auto const& table : sequences[which].tables)
      for (std::int32_t const page : table) counts.release(page);
    sequences.erase(sequences.begin() + std::ptrdiff_t(which));
  }

  /// The view of some sequences; its arrays are this object's.
  kvevict::layer_view<Entry> view(std::vector<std::size_t> const& chosen, bool csr) {
    std::size_t columns = 1;
    for (std::size_t const s : chosen)
      for (auto const& table : sequences[s].tables) columns = std::max(columns, table.size());
    entries_.clear(), begin_.assign(1, 0), lengths_.clear();
    for (std::size_t const s : chosen) {
      for (auto const& table : sequences[s].tables) {
        for (std::int32_t const page : table) entries_.push_back(entry(page));
        if (!csr) entries_.resize(entries_.size() + columns - table.size());
        begin_.push_back(std::int32_t(entries_.size()));
      }
      for (auto const& row : sequences[s].rows) lengths_.push_back(std::int32_t(row.size()));
    }
    entries_.resize(entries_.size() + 1);  // never empty: null means a contiguous cache
    kvevict::layer_view<Entry> v;
    v.pages.entries = entries_.data(), v.pages.row_begin = csr ? begin_.data() : nullptr;
    v.pages.sequences = std::int32_t(chosen.size()), v.pages.heads = H, v.pages.page_size = P;
    v.pages.columns = std::int32_t(columns);
    v.pages.head_stride = per_head_ ? std::int64_t(columns) : 0;
    v.pages.seq_stride = std::int64_t(columns * tables());
    v.lengths = {lengths_.data(), H, 1};
    std::int64_t at = 0;
    for (std::size_t c = 0; c < 4; ++c) {
      kvevict::component x;
      x.what = roles[c], x.type = roles[c] == kvevict::role::position ? kvevict::dtype::i32 : kvevict::dtype::f32;
      bool const addresses = std::is_pointer_v<Entry>;
      x.rows = {addresses ? nullptr : pool.data(),
                at,
                addresses ? 0 : pages(),
                std::int64_t(page_bytes(per_head_)),
                per_head_ ? 0 : P * widths[c],
                widths[c],
                0,
                widths[c],
                1};
      if (addresses) x.rows.page_stride = 0;
      at += std::int64_t{P} * widths[c] * (per_head_ ? 1 : H);
      v = v.with(x);
    }
    return v;
  }

  /// Whether slot t of a head holds that token, in all components.
  bool holds(sequence const& s, std::int32_t h, std::int32_t t, token const& x) const {
    auto const words = words_of(x);
    std::size_t at = 0;
    for (std::size_t c = 0; c < 4; at += std::size_t(widths[c++]))
      if (std::memcmp(pool.data() + place(s, h, t, c), words.data() + at, std::size_t(widths[c])) != 0) return false;
    return true;
  }
  bool sound(sequence const& s) const {
    for (std::int32_t h = 0; h < H; ++h)
      for (std::size_t t = 0; t < s.rows[std::size_t(h)].size(); ++t)
        if (!holds(s, h, std::int32_t(t), s.rows[std::size_t(h)][t])) return false;
    return true;
  }
  /// References and free pages are those that the tables show.
  bool counted() const {
    std::vector<std::int32_t> shown(counts.count.size());
    for (sequence const& s : sequences)
      for (auto const& table : s.tables)
        for (std::int32_t const page : table) ++shown[std::size_t(page)];
    std::set<std::int32_t> const free(counts.free.begin(), counts.free.end());
    bool right = shown == counts.count && free.size() == counts.free.size();
    for (std::int32_t i = 0; i < pages(); ++i)
      right = right && (free.count(i) != 0) == (counts.references(i) == 0 && !counts.published(i));
    return right;
  }

 private:
  static constexpr kvevict::role roles[] = {kvevict::role::k, kvevict::role::v, kvevict::role::position,
                                            kvevict::role::state};
  static constexpr std::size_t page_bytes(bool heads_apart) { return std::size_t{P} * 20 * (heads_apart ? 1 : H); }
  std::size_t tables() const { return per_head_ ? H : 1; }

  static std::array<std::byte, 20> words_of(token const& x) {
    std::uint32_t const words[] = {x.value, ~x.value, x.value * 2654435761u, std::uint32_t(x.position),
                                   x.value ^ 0x5555u};
    std::array<std::byte, 20> out;
    std::memcpy(out.data(), words, 20);
    return out;
  }
  std::size_t place(sequence const& s, std::int32_t h, std::int32_t t, std::size_t c) const {
    auto const& table = s.tables[per_head_ ? std::size_t(h) : 0];
    std::size_t at = std::size_t(table[std::size_t(t / P)]) * page_bytes(per_head_), heads = per_head_ ? 1 : H;
    for (std::size_t i = 0; i < c; ++i) at += std::size_t(P * widths[i]) * heads;
    return at + (per_head_ ? 0 : std::size_t(h * P * widths[c])) + std::size_t(t % P * widths[c]);
  }
  void write(sequence const& s, std::int32_t h, std::int32_t t, token const& x) {
    auto const words = words_of(x);
    std::size_t at = 0;
    for (std::size_t c = 0; c < 4; at += std::size_t(widths[c++]))
      std::memcpy(pool.data() + place(s, h, t, c), words.data() + at, std::size_t(widths[c]));
  }

  bool per_head_;
  reference::generator random_;
  std::vector<Entry> entries_;
  std::vector<std::int32_t> begin_, lengths_;
};

}  // namespace support
