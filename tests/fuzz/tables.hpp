// SPDX-License-Identifier: Apache-2.0
// Members of cache: page tables, prefixes that sequences share, positions, and what the tokens hold at first.
#pragma once

#include "fuzz/cache.hpp"

namespace fuzz {

template <class Entry> void cache<Entry>::choose_table() {
  if (identity_) {
    view.pages.columns = 1, view.pages.head_stride = per_head_ ? 1 : 0;
    return;
  }
  make_pages();
  std::int32_t const per_layer = shape_.sequences / shape_.layers, heads = per_head_ ? shape_.heads : 1,
                     tables = common_table_ ? 1 : shape_.layers;
  std::int64_t columns = 1;
  for (std::int32_t const n : tokens_) columns = std::max(columns, pages_of(n));
  auto const stray = [&] {
    if constexpr (of_pointers)
      return Entry{nullptr};
    else
      return static_cast<Entry>(in_.one_in(2) ? -1 : 0);
  };
  auto const longest = [&](std::int32_t l, std::int32_t s, std::int32_t h) {  // in the layers of a common table
    std::int32_t n = 0;
    for (std::int32_t k = l; k < (common_table_ ? shape_.layers : l + 1); ++k)
      n = std::max(n, tokens_[static_cast<std::size_t>((k * per_layer + s) * shape_.heads + h)]);
    return n;
  };
  std::int64_t const pad = csr_ ? 0 : in_.below(3);
  if (in_.one_in(2)) entries.push_back(stray());  // the table does not begin with the array
  std::size_t const first = entries.size();
  for (std::int32_t l = 0; l < tables; ++l)
    for (std::int32_t s = 0; s < per_layer; ++s)
      for (std::int32_t h = 0; h < heads; ++h) {
        row_begin.push_back(static_cast<std::int32_t>(entries.size() - first));
        std::int32_t const n = longest(l, s, h);
        std::int64_t const used = (n + page_size_ - 1) / page_size_, room = csr_ ? pages_of(n) : columns + pad;
        for (std::int64_t i = 0; i < room; ++i) {
          entries.push_back(i < used ? free_.back() : stray());
          if (i < used) free_.pop_back();
        }
      }
  row_begin.push_back(static_cast<std::int32_t>(entries.size() - first));
  view.pages.entries = entries.data() + first;
  view.pages.row_begin = csr_ ? row_begin.data() : nullptr;
  view.pages.columns = static_cast<std::int32_t>(columns);
  view.pages.head_stride = per_head_ ? columns + pad : 0;
  view.pages.seq_stride = heads * (columns + pad);
  view.pages.layer_stride = common_table_ || shape_.layers == 1 ? 0
                            : csr_                              ? per_layer * heads
                                                                : per_layer * view.pages.seq_stride;
}

/// Prefixes that several sequences share, and rows out of order.
template <class Entry> void cache<Entry>::choose_order() {
  if (!identity_ && in_.one_in(4)) {
    read_only.assign(static_cast<std::size_t>(shape_.sequences), 0);
    std::int32_t donor = in_.below(shape_.sequences);
    for (std::int32_t b = 0; b < shape_.sequences; ++b) {
      std::int32_t shortest = 1 << 20;
      for (std::int32_t h = 0; h < shape_.heads; ++h)
        shortest = std::min({shortest, view.length(b, h), view.length(donor, h)});
      std::int32_t const pages = in_.between(0, shortest / page_size_);
      if (shape_.layers > 1 || in_.one_in(3)) {  // a prefix of its own
        read_only[static_cast<std::size_t>(b)] =
            in_.one_in(8) ? 64 : std::max(read_only[std::size_t(b)], pages * page_size_);
        continue;
      }
      for (std::int32_t of : {b, donor})
        read_only[static_cast<std::size_t>(of)] = std::max(read_only[static_cast<std::size_t>(of)], pages * page_size_);
      for (std::int32_t h = 0; b != donor && h < (per_head_ ? shape_.heads : 1); ++h)
        for (std::int32_t i = 0; i < pages; ++i)
          const_cast<Entry&>(view.pages.entries_of(b, h)[i]) = view.pages.entries_of(donor, h)[i];
    }
    view.read_only = read_only.data();
  }
  alike_ = read_only.empty() ? std::vector<std::int32_t>(static_cast<std::size_t>(shape_.sequences)) : read_only;
  if (!identity_ && read_only.empty() && shape_.layers == 1 && shape_.sequences > 1 && in_.one_in(4)) share_pages();
  if (view.find(role::position) != nullptr && in_.one_in(6)) view.order = kvevict::row_order::scattered;
}

/// Forks of the first sequence: their first full pages are its pages, and nobody says so.
template <class Entry> void cache<Entry>::share_pages() {
  for (std::int32_t b = 1; b < shape_.sequences; ++b) {
    std::int32_t shortest = 1 << 20;
    for (std::int32_t h = 0; h < shape_.heads; ++h)
      shortest = std::min({shortest, view.length(b, h), view.length(0, h)});
    std::int32_t const pages = in_.between(0, shortest / page_size_);
    forked = forked || pages > 0;
    for (std::int32_t const of : {b, 0})
      alike_[static_cast<std::size_t>(of)] = std::max(alike_[static_cast<std::size_t>(of)], pages * page_size_);
    for (std::int32_t h = 0; h < (per_head_ ? shape_.heads : 1); ++h)
      for (std::int32_t i = 0; i < pages; ++i)
        const_cast<Entry&>(view.pages.entries_of(b, h)[i]) = view.pages.entries_of(0, h)[i];
  }
}

/// Some components go by a table of their own, behind all rows of the first one.
template <class Entry> void cache<Entry>::choose_own_pages() {
  if (of_pointers || identity_ || interleaved_ || !in_.one_in(4)) return;
  own_pages_ = static_cast<std::int64_t>(entries.size());
  std::ptrdiff_t const first = view.pages.entries - entries.data();
  for (std::int64_t i = 0; i < own_pages_; ++i) entries.push_back(other_page(entries[static_cast<std::size_t>(i)]));
  view.pages.entries = entries.data() + first;
  for (std::int32_t i = 1; i < view.component_count; ++i)
    if (component& c = view.components[static_cast<std::size_t>(i)]; c.alias_of < 0 && in_.one_in(2))
      c.table_offset = own_pages_;
}

template <class Entry> void cache<Entry>::fill() {
  next_position.assign(static_cast<std::size_t>(shape_.sequences), 0);
  for (std::int32_t b = 0; b < shape_.sequences; ++b)
    for (std::int32_t h = 0; h < shape_.heads; ++h) {
      std::int32_t const n = view.length(b, h);
      std::vector<std::int32_t> positions;
      for (std::int32_t t = 0, p = 0; t < n; ++t)  // alike in all that share a prefix
        positions.push_back(p += t < alike_[static_cast<std::size_t>(b)] ? 1 : in_.between(1, 3));
      if (view.order == kvevict::row_order::scattered)  // a prefix is first in position, too
        in_.shuffle(positions, static_cast<std::size_t>(std::min(n, alike_[static_cast<std::size_t>(b)])));
      for (component const& c : view)
        for (std::int32_t t = 0; t < n && (h == 0 || !view.shared_by_heads(c)); ++t)
          write_token(c, b, h, t, positions[static_cast<std::size_t>(t)]);
      for (std::int32_t const p : positions)
        next_position[std::size_t(b)] = std::max(next_position[std::size_t(b)], p + 1);
    }
}

}  // namespace fuzz
