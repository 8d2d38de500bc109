// SPDX-License-Identifier: Apache-2.0
// Every check a view can be given without reading K or V: ids, doubles, overlaps, lengths, strides, alignment.
// O(pages).
#pragma once

#include <cstdint>

#include <kvevict/cache/layer_view.hpp>
#include <kvevict/cache/validate_addresses.hpp>
#include <kvevict/cache/validate_components.hpp>
#include <kvevict/cache/validate_pages.hpp>
#include <kvevict/core/contract.hpp>
#include <kvevict/core/host.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace validation {

/// Whether the last of `count` entries or lengths, a stride apart, lies within 64 bits, with room for other strides.
constexpr bool within_reach(std::int64_t stride, std::int32_t count) {
  return stride >= 0 && stride <= (std::int64_t{1} << 57) / (count < 1 ? 1 : count);
}

template <class Entry> void check_shape(layer_view<Entry> const& v) {
  auto const& t = v.pages;
  KVEVICT_EXPECTS(t.sequences >= 0 && t.heads >= 0 && t.columns >= 0, "validate: the page table has ", t.sequences,
                  " sequences, ", t.heads, " heads and ", t.columns, " columns; none may be negative");
  KVEVICT_EXPECTS(t.layers >= 1 && t.sequences % t.layers == 0 && t.layer_stride >= 0, "validate: a stack of ",
                  t.layers, " layers, ", t.layer_stride, " entries apart, with ", t.sequences,
                  " sequences; pages.sequences counts those of all layers, layers is 1 or more");
  KVEVICT_EXPECTS(t.seq_stride >= 0 && t.head_stride >= 0, "validate: the page table's rows are ", t.seq_stride,
                  " entries apart and its heads ", t.head_stride,
                  "; start at the lowest entry and count upwards, neither may be negative");
  KVEVICT_EXPECTS(v.rows() < std::int64_t{1} << 31, "validate: ", t.sequences, " sequences of ", t.heads,
                  " heads; give a view fewer than 2^31 rows at once");
  KVEVICT_EXPECTS(within_reach(t.layer_stride, t.layers) && within_reach(t.seq_stride, t.sequences) &&
                      within_reach(t.head_stride, t.heads),
                  "validate: the page table's layers, rows and heads are ", t.layer_stride, ", ", t.seq_stride, " and ",
                  t.head_stride, " entries apart, beyond 64 bits; correct the strides");
  auto const& n = v.lengths;
  KVEVICT_EXPECTS(within_reach(n.seq_stride, t.sequences) && within_reach(n.head_stride, t.heads),
                  "validate: lengths are ", n.seq_stride, " apart from sequence to sequence and ", n.head_stride,
                  " from head to head; start at the lowest and count upwards, in elements");
  KVEVICT_EXPECTS(t.page_size > 0, "validate: a page of ", t.page_size,
                  " tokens; set pages.page_size to the tokens per page");
  KVEVICT_EXPECTS(t.alignment >= 1, "validate: pages.alignment is ", t.alignment,
                  "; give the bytes that pages are aligned to, or 1");
  KVEVICT_EXPECTS(v.component_count >= 1 && v.component_count <= v.max_components, "validate: ", v.component_count,
                  " components; a view has 1 to ", v.max_components, ", K first among them");
  KVEVICT_EXPECTS(v.find(role::k) != nullptr, "validate: no component has role::k; add the keys");
  KVEVICT_EXPECTS(v.rows() == 0 || v.lengths.data != nullptr,
                  "validate: lengths.data is null; point it to the tokens of each sequence");
  KVEVICT_EXPECTS(n.page_begin == nullptr || n.page_size == t.page_size, "validate: lengths count pages of ",
                  n.page_size, " tokens and the table's have ", t.page_size, "; give lengths the table's page size");
}

template <class Entry> void check_offsets(page_table<Entry> const& t) {
  if (t.row_begin == nullptr) return;
  for (std::int64_t i = 0; i < t.rows(); ++i) {
    std::int64_t const H = t.per_head() ? t.heads : 1,
                       r = t.row_of(static_cast<std::int32_t>(i / H), static_cast<std::int32_t>(i % H));
    std::int64_t const from = t.row_begin[r], to = t.row_begin[r + 1];
    if (from < 0 || from > to) messages::page_offsets(r, from, to);
  }
}

/// Lengths against each other, the read-only prefix and room(b, h) in the table.
template <class Entry, class Room> void check_lengths(layer_view<Entry> const& v, Room room) {
  auto const& t = v.pages;
  bool const one_length = v.one_length_for_layers();
  for (std::int32_t b = 0; b < v.sequences(); ++b)
    for (std::int32_t h = 0; h < v.heads(); ++h) {
      std::int32_t const n = v.length(b, h), fixed = v.read_only_tokens(b);
      if (n < 0) messages::negative_length(b, h, n);
      if (n > room(b, h)) messages::length_beyond_table(b, h, n, room(b, h));
      if (!t.per_head() && n != v.length(b, 0)) messages::lengths_differ(b, h, v.length(b, 0), n);
      if (std::int32_t const first = v.length(t.sequence_of(b), h); one_length && n != first)
        messages::layers_differ(b, h, t.layer_of(b), first, n);
      if (fixed < 0 || (fixed % t.page_size != 0 && fixed < n)) messages::read_only(b, fixed, t.page_size);
    }
}

/// Returns the pages in use.
template <class Entry> std::int64_t check_lengths(layer_view<Entry> const& v) {
  auto const& t = v.pages;
  check_lengths(v, [&](std::int32_t b, std::int32_t h) { return t.capacity(b, h); });
  std::int64_t used = 0;
  for (std::int32_t b = 0; b < v.sequences(); ++b)
    for (std::int32_t h = 0; h < v.heads(); ++h) used += pages_in_use(v, b, h);
  KVEVICT_EXPECTS(
      used == 0 || !t.is_identity() || (!t.holds_pointers && t.row_begin == nullptr),
      "validate: pages.entries is null but the table needs entries; null means a contiguous cache, page = sequence");
  return used;
}

}  // namespace validation

/// Raises contract_violation unless every row of the view can be read, and the rows beyond the read-only prefixes
/// written, without touching another one. Where pages are only read (page_use::read), rows may have pages in common.
///
/// Checks   table extents, CSR offsets, lengths against tables and prefixes; page ids in range; strides, alignment,
///          int64 range; and that no byte belongs to two rows: of one table row, or of two of which one is written. A
///          row owns all slots of its pages in use; components that alias and rows that all heads share count once.
///          Components with pages of their own: of each table; and of different ones, whose pools may be one.
/// Cost     O(pages in use + largest id / 64) where strides alone keep pages apart; for tables of addresses a sort.
///          Else a sort for each pair of components and a look at the pages that come close, see page_search. K and V
///          are not read.
/// Notes    Only the pages that hold tokens are looked at: entries behind them may be anything (−1, null pages,
///          reserved ones). Ids may count less than a page (rows of a cache whose heads interleave, blocks), when all
///          slots of a page lie below page_count. A cache whose strides are wrong is refused when pages in use collide.
template <class Entry> void validate(layer_view<Entry> const& view, arena& scratch, page_use use = page_use::written) {
  validation::check_shape(view);
  if (view.rows() == 0) return;
  validation::check_offsets(view.pages);
  if (validation::check_lengths(view) == 0) return;
  validation::check_components(view);
  validation::check_pages(view, scratch, use);
}

template <class Entry> void validate(layer_view<Entry> const& view) {
  arena scratch;
  validate(view, scratch);
}

/// Scratch that `validate` takes for a view of that many pages in its tables and in its pool (of a stack: times the
/// layers; where heads have tables of their own and strides: times the heads), and `sequences` that have pages in
/// common.
constexpr std::int64_t validate_bytes(std::int64_t table_pages, std::int64_t pool_pages, std::int64_t sequences = 0) {
  std::int64_t const bitmaps = 2 * ((pool_pages + 511) / 512 * 64), places = 2 * ((table_pages * 16 + 63) / 64 * 64);
  return (bitmaps > places ? bitmaps : places) + (sequences * 4 + 63) / 64 * 64;
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
