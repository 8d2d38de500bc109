// SPDX-License-Identifier: Apache-2.0
// No page id twice where it would be written twice; and which pages rows have in common.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include <kvevict/cache/validate_pages.hpp>
#include <kvevict/core/fill.hpp>
#include <kvevict/core/host.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace validation {

/// Page i of row (b, h) of the table.
struct table_place {
  std::int32_t b, h;
  std::int64_t i;
};
/// The component whose own pages a view's table names; null where they are K's.
template <class Entry> constexpr char const* own_pages_of(layer_view<Entry> const& v) {
  return v.find(role::k) != nullptr ? nullptr : name_of(v.begin()->what);
}
[[noreturn]] inline void violate_double(table_place x, table_place y, char const* of) {
  if (x.b == y.b && x.h == y.h) messages::page_twice(std::min(x.i, y.i), std::max(x.i, y.i), x.b, x.h, of);
  messages::page_shared(x.i, x.b, x.h, y.i, y.b, y.h, of);
}

/// Says who else uses the page of entry i of row (b, h). Only on the way to an error, so it searches.
template <class Entry> void violate_double(layer_view<Entry> const& v, std::int32_t b, std::int32_t h, std::int64_t i) {
  Entry const id = v.pages.entry(b, h, i);
  for (std::int64_t j = 0; j < pages_in_use(v, b, h); ++j)
    if (j != i && v.pages.entry(b, h, j) == id) violate_double({b, h, i}, {b, h, j}, own_pages_of(v));
  page_parts const parts = page_parts::of(v);
  for_each_table_row(v, [&](std::int32_t b2, std::int32_t h2) {
    for (std::int64_t j = 0; j < pages_in_use(v, b2, h2); ++j)
      if ((b2 != b || h2 != h) && parts(v.pages, b2, h2) == parts(v.pages, b, h) && v.pages.entry(b2, h2, j) == id)
        violate_double({b, h, i}, {b2, h2, j}, own_pages_of(v));
  });
}

struct bitmap {
  std::uint64_t* words;
  bitmap(frame& scratch, std::int64_t bits) : words(scratch.allocate<std::uint64_t>((bits + 63) / 64)) {
    kvevict::fill_n(words, (bits + 63) / 64, 0u);
  }
  static std::uint64_t bit(std::int64_t i) { return std::uint64_t{1} << (i % 64); }
  bool has(std::int64_t i) const { return (words[i / 64] & bit(i)) != 0; }
  void set(std::int64_t i) { words[i / 64] |= bit(i); }
  void clear(std::int64_t i) { words[i / 64] &= ~bit(i); }
};

/// Whether two rows of a sequence that name the same page have a byte of it in common, which nobody has declared.
template <class Entry>
constexpr bool same_bytes(layer_view<Entry> const& v, std::int32_t b, std::int32_t h, std::int32_t b2,
                          std::int32_t h2) {
  auto const at = [&](component const& c, std::int32_t row, std::int32_t head) {
    return c.rows.row_offset(v.pages.layer_of(row), head, 0);
  };
  bool same = false;
  for (component const& c : v) same = same || (at(c, b, h) == at(c, b2, h2) && !(v.shared_by_layers(c) && h == h2));
  return same;
}

/// Of a page that rows have in common: that of a fork is another sequence's. Where a row before has it as the same
/// page, in another layer or head of the same sequence, strides or tables are wrong.
template <class Entry> void expect_fork(layer_view<Entry> const& v, std::int32_t b, std::int32_t h, std::int64_t i) {
  std::int32_t const S = v.sequences() / v.pages.layers, heads = v.pages.per_head() ? v.heads() : 1;
  for (std::int32_t b2 = v.pages.sequence_of(b); b2 <= b; b2 += S)
    for (std::int32_t h2 = 0; h2 < (b2 < b ? heads : h); ++h2)
      if (i < pages_in_use(v, b2, h2) && v.pages.entry(b2, h2, i) == v.pages.entry(b, h, i) &&
          same_bytes(v, b, h, b2, h2))
        violate_double({b, h, i}, {b2, h2, i}, own_pages_of(v));
}

/// Of pages that several rows name, or one row twice, where they may be written.
enum class doubles : std::uint8_t { none, unknown, common };

/// Where pages with different ids lie apart: no id twice in a part that is written, which is a violation; or, where all
/// are only read, `common`; or, of mixed parts, not known to be one. `end`: 1 + the largest id.
template <class Entry> doubles find_doubles(layer_view<Entry> const& v, std::int64_t end, arena& memory, page_use use) {
  page_parts const parts = page_parts::of(v);
  std::int64_t const bits = end * parts.count();
  frame scratch(memory);
  bitmap written(scratch, bits), seen(scratch, v.read_only == nullptr ? 0 : bits);
  doubles found = doubles::none;
  auto const twice = [&](std::int32_t b, std::int32_t h, std::int64_t i) {
    if (use == page_use::read)
      expect_fork(v, b, h, i);
    else if (!parts.mixed)
      violate_double(v, b, h, i);
    found = use == page_use::read ? doubles::common : doubles::unknown;
  };
  for_each_table_row(v, [&](std::int32_t b, std::int32_t h) {
    std::int64_t const part = parts(v.pages, b, h) * end;
    for (std::int64_t i = read_only_pages(v, b, h), n = pages_in_use(v, b, h); i < n; ++i) {
      std::int64_t const id = part + static_cast<std::int64_t>(v.pages.entry(b, h, i));
      if (written.has(id)) twice(b, h, i);
      written.set(id);
    }
  });
  if (v.read_only == nullptr) return found;
  for_each_table_row(v, [&](std::int32_t b, std::int32_t h) {
    std::int64_t const n = read_only_pages(v, b, h), part = parts(v.pages, b, h) * end;
    for (std::int64_t i = 0; i < n; ++i) {
      std::int64_t const id = part + static_cast<std::int64_t>(v.pages.entry(b, h, i));
      if (written.has(id) || seen.has(id)) twice(b, h, i);
      seen.set(id);
    }
    for (std::int64_t i = 0; i < n; ++i) seen.clear(part + static_cast<std::int64_t>(v.pages.entry(b, h, i)));
  });
  return found;
}

/// The view as one that nobody writes; memory of a frame.
template <class Entry> layer_view<Entry> only_read(layer_view<Entry> const& v, frame& scratch) {
  auto* const whole = scratch.allocate<std::int32_t>(v.sequences());
  kvevict::fill_n(whole, v.sequences(), std::numeric_limits<std::int32_t>::max());
  return v.with_read_only(whole);
}

}  // namespace validation
}  // namespace KVEVICT_ABI
}  // namespace kvevict
