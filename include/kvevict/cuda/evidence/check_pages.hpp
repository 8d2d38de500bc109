// SPDX-License-Identifier: Apache-2.0
// The pages of a table on a device: in range, none that two rows write, and none that a row has twice.
#pragma once

#include <algorithm>
#include <array>

#include <kvevict/cuda/evidence/order_check.hpp>
#include <kvevict/cuda/evidence/written_pages.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

/// Pages in range and aligned, and none that two rows or one row twice would write; or, where all are only read, that
/// one row has twice, or two layers or heads of a sequence. Of ascending rows the positions.
/// One thread per page of a table's row, or part of it. The second kernel of a call, launched for every table that
/// components go by: it raises what the first has recorded.
///
/// Shapes   a page table (table rows, pages), words of zeros → words.
template <class Entry> struct check_pages_kernel {
  static constexpr int max_threads = 256;
  watched watch;
  layer_view<Entry> v;
  std::array<validation::id_rule, layer_view<Entry>::max_components> rules;
  std::array<char const*, layer_view<Entry>::max_components> names;
  written_pages<Entry> written;
  std::int64_t pages;  // most of a row
  page_use use;
  bool prefixes;             // the second pass: is a page of a read-only prefix written by a row, or twice in its own?
  char const* of = nullptr;  // the component whose own pages these are; null: K's
  order_check order{};

  KVEVICT_DEVICE void operator()(thread& t) const {
    std::int64_t const index = std::int64_t{t.block().x} * t.block_size().x + t.linear_index(),
                       at = index / order.parts, r = at / pages, i = at % pages;
    if (r >= v.pages.rows() || watch.stopped(t)) return;
    std::int64_t const heads = v.pages.per_head() ? v.heads() : 1;
    auto const b = static_cast<std::int32_t>(r / heads), h = static_cast<std::int32_t>(r % heads);
    if (fault_record const& before = watch.taken_over(); before.place != 0) return watch.raise_from(t, before);
    if (watch.records[b % watch.room].unreadable) return watch.raise(t, true);  // as the kernel before has found
    if (i >= validation::pages_in_use(v, b, h)) return;
    Entry const page = v.pages.entry(b, h, i);
    std::int64_t name;
    if constexpr (page_table<Entry>::holds_pointers)
      name = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(page));
    else
      name = static_cast<std::int64_t>(page);
    if (!is_sound(t, b, h, i, name)) return;
    if (order.wanted)
      order.look(t, watch, v, b, h, i, index % order.parts,
                 [&](std::int64_t other) { return may_be_read(b, h, other); });
    if (index % order.parts != 0) return;
    if (v.pages.is_identity()) return;
    if (use == page_use::read) {
      if (written.template has<false>(t, v, at, pages)) check_common(t, b, h, i);
      return;
    }
    if (prefixes != (i < validation::read_only_pages(v, b, h))) return;
    bool twice = prefixes ? written.template has<true>(t, v, at, pages) : written.template has<false>(t, v, at, pages);
    for (std::int64_t j = 0; prefixes && j < i; ++j) twice = twice || v.pages.entry(b, h, j) == page;
    if (twice) refuse_twice(t, prefixes ? at : second_user(at));
  }

 private:
  /// A page that others have, too, was noted by one of them at least: is that the same row, or one of the same sequence
  /// that has it as the same page? Whichever thread looks, the second of them is named with the first.
  KVEVICT_DEVICE void check_common(thread& t, std::int32_t b, std::int32_t h, std::int64_t i) const {
    Entry const page = v.pages.entry(b, h, i);
    std::int64_t first = -1;
    for (std::int64_t j = 0, n = validation::pages_in_use(v, b, h); j < n; ++j) {
      if (v.pages.entry(b, h, j) != page) continue;
      if (first >= 0) return watch.refuse_of(t, of, fault::page_twice, b, h, first, j, j);
      first = j;
    }
    std::int32_t const S = v.sequences() / v.pages.layers, heads = v.pages.per_head() ? v.heads() : 1;
    std::int32_t first_b = -1, first_h = 0;
    for (std::int32_t b2 = v.pages.sequence_of(b); b2 < v.sequences(); b2 += S)
      for (std::int32_t h2 = 0; h2 < heads; ++h2) {
        if (std::int64_t const n = v.length(b2, h2); n <= i * v.pages.page_size || n > room_of(v, b2, h2)) continue;
        if (v.pages.entry(b2, h2, i) != page) continue;
        if ((b2 != b || h2 != h) && !validation::same_bytes(v, b, h, b2, h2)) continue;
        if (first_b >= 0) return watch.refuse_of(t, of, fault::page_shared, b2, h2, i, 0, i, first_b, first_h);
        first_b = b2, first_h = h2;
      }
  }

  /// The page alone; else it is refused.
  KVEVICT_DEVICE bool is_sound(thread& t, std::int32_t b, std::int32_t h, std::int64_t i, std::int64_t name) const {
    auto const refuse = [&](fault kind, std::int64_t other, char const* part) {
      watch.refuse_of(t, part, kind, b, h, name, other, i);
      return false;
    };
    if constexpr (page_table<Entry>::holds_pointers) {
      auto const address = static_cast<std::uintptr_t>(name);
      if (address == 0) return refuse(fault::page_null, 0, nullptr);
      for (std::int32_t c = 0; c < v.component_count; ++c)
        if (component const& it = v.begin()[c];
            (address + static_cast<std::uintptr_t>(it.rows.offset)) % static_cast<std::uintptr_t>(it.alignment()) != 0)
          return refuse(fault::page_unaligned, 0, names[static_cast<std::size_t>(c)]);
      if (address % static_cast<std::uintptr_t>(v.pages.alignment) != 0)
        return refuse(fault::page_alignment, v.pages.alignment, nullptr);
    } else {
      for (std::int32_t c = 0; c < v.component_count; ++c)
        if (validation::id_rule const& rule = rules[static_cast<std::size_t>(c)]; !rule.allows(name))
          return refuse(name < 0 || name >= rule.pool ? fault::page : fault::page_between, rule.pool,
                        names[static_cast<std::size_t>(c)]);
    }
    return true;
  }

  /// Page i of the row is sound; else another thread says so.
  KVEVICT_DEVICE bool may_be_read(std::int32_t b, std::int32_t h, std::int64_t i) const {
    Entry const page = v.pages.entry(b, h, i);
    if constexpr (page_table<Entry>::holds_pointers) {
      return page != nullptr && reinterpret_cast<std::uintptr_t>(page) % sizeof(std::int32_t) == 0;
    } else {
      bool sound = true;
      for (std::int32_t c = 0; c < v.component_count; ++c)
        sound = sound && rules[static_cast<std::size_t>(c)].allows(static_cast<std::int64_t>(page));
      return sound;
    }
  }

  /// f(place of a page in use, its row, whether it is written) of all rows in order whose lengths can be believed,
  /// until it says so. Only on the way to an error.
  template <class F> KVEVICT_DEVICE void each_page(F f) const {
    std::int64_t const heads = v.pages.per_head() ? v.heads() : 1;
    for (std::int64_t r = 0; r < v.pages.rows(); ++r) {
      auto const b = static_cast<std::int32_t>(r / heads), h = static_cast<std::int32_t>(r % heads);
      if (std::int32_t const n = v.length(b, h); n < 0 || n > room_of(v, b, h)) continue;
      for (std::int64_t i = 0, n = validation::pages_in_use(v, b, h); i < n; ++i)
        if (f(r * pages + i, r, i >= validation::read_only_pages(v, b, h))) return;
    }
  }
  /// Of the rows that write the page at `at`, the second in order, or the same row's second page: whichever thread has
  /// come too late, it is this one that is named.
  KVEVICT_DEVICE std::int64_t second_user(std::int64_t at) const {
    std::int64_t users = 0, second = at;
    each_page([&](std::int64_t other, std::int64_t, bool is_written) {
      if (is_written && written.same(v, at, other, pages) && ++users == 2) second = other;
      return users == 2;
    });
    return second;
  }
  /// With another page of its row that is the same, else with the first of another row. Of two rows of addresses the
  /// later one is named first, as on the host, which sorts them.
  KVEVICT_DEVICE void refuse_twice(thread& t, std::int64_t at) const {
    std::int64_t in_row = -1, other = -1;
    for (bool search = true; search;) {
      in_row = other = -1;
      each_page([&](std::int64_t place, std::int64_t row, bool) {
        if (place == at || !written.same(v, at, place, pages)) return false;
        if (row == at / pages && in_row < 0) in_row = place % pages;
        if (row != at / pages && other < 0) other = place;
        return in_row >= 0;
      });
      search = page_table<Entry>::holds_pointers && in_row < 0 && other > at;
      if (search) at = other;
    }
    std::int64_t const heads = v.pages.per_head() ? v.heads() : 1, r = at / pages, i = at % pages;
    auto const b = static_cast<std::int32_t>(r / heads), h = static_cast<std::int32_t>(r % heads);
    if (in_row >= 0 || other < 0)
      watch.refuse_of(t, of, fault::page_twice, b, h, std::min(i, std::max<std::int64_t>(in_row, 0)),
                      std::max(i, in_row), i);
    else
      watch.refuse_of(t, of, fault::page_shared, b, h, other % pages, 0, i,
                      static_cast<std::int32_t>(other / pages / heads),
                      static_cast<std::int32_t>(other / pages % heads));
  }
};

}  // namespace kvevict::inline KVEVICT_ABI::cuda
