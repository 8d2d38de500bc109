// SPDX-License-Identifier: Apache-2.0
// Checks of a view's components: strides, alignment, range, and that no byte belongs to two rows.
#pragma once

#include <cstdint>
#include <limits>

#include <kvevict/cache/footprint.hpp>
#include <kvevict/cache/layer_view.hpp>
#include <kvevict/core/contract.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace validation {

/// Pages that the strides of a component run over; one for tables of addresses.
template <class Entry> constexpr std::int64_t pool_pages(component const& c) {
  return page_table<Entry>::holds_pointers ? 1 : c.rows.page_count;
}

template <class Entry> footprint footprint_of(layer_view<Entry> const& v, component const& c) {
  return kvevict::footprint_of(c.rows, v.pages.layers, pool_pages<Entry>(c), v.heads(), v.pages.page_size,
                               page_table<Entry>::holds_pointers);
}

/// Single-head pages of a cache whose heads interleave (LAYOUTS, head as batch: NHD): `period` ids make one slot, and
/// an id is sound when it starts a page. 0: the component is not of that kind.
template <class Entry> std::int64_t interleaving(layer_view<Entry> const& v, component const& c) {
  row_map const& m = c.rows;
  bool const single = !page_table<Entry>::holds_pointers && m.n_runs == 1 && (v.heads() == 1 || m.head_stride == 0);
  if (v.pages.layers > 1 && m.layer_stride != 0 && m.layer_stride < m.page_count * m.page_stride) return 0;
  if (!single || m.page_stride < m.run_bytes || m.slot_stride <= m.page_stride || m.slot_stride % m.page_stride != 0)
    return 0;
  return m.slot_stride / m.page_stride;
}

template <class Entry> void check_strides(layer_view<Entry> const& v, component const& c) {
  row_map const& m = c.rows;
  bool const by_address = page_table<Entry>::holds_pointers;
  KVEVICT_EXPECTS(m.run_bytes > 0 && m.n_runs > 0 && m.run_bytes % size_of(c.type) == 0,
                  "validate: a row of component ", name_of(c.what), " is ", m.n_runs, " runs of ", m.run_bytes,
                  " bytes; both must be positive and a run whole elements of ", name_of(c.type));
  KVEVICT_EXPECTS(m.offset >= 0 && m.page_stride >= 0 && m.head_stride >= 0 && m.slot_stride >= 0 &&
                      m.run_stride >= 0 && m.layer_stride >= 0,
                  "validate: component ", name_of(c.what),
                  " has a negative offset or stride; start at its lowest byte and count upwards");
  KVEVICT_EXPECTS(by_address || m.base != nullptr, "validate: component ", name_of(c.what),
                  " has no base; point it to the pool");
  KVEVICT_EXPECTS(by_address || m.page_count <= 1 || m.page_stride > 0, "validate: component ", name_of(c.what),
                  " has ", m.page_count, " pages and page_stride 0; set the bytes from page to page");
  KVEVICT_EXPECTS(v.pages.page_size <= 1 || m.slot_stride > 0, "validate: component ", name_of(c.what), " has ",
                  v.pages.page_size, " slots a page and slot_stride 0; set the bytes from slot to slot");
  KVEVICT_EXPECTS(v.pages.layers == 1 || !v.pages.is_identity() || m.layer_stride > 0, "validate: component ",
                  name_of(c.what), " of a contiguous stack of ", v.pages.layers,
                  " layers has layer_stride 0, so that all would be one; set the bytes from layer to layer");
  KVEVICT_EXPECTS(m.n_runs <= 1 || m.run_stride > 0, "validate: component ", name_of(c.what), " has ", m.n_runs,
                  " runs a row and run_stride 0; set the bytes from run to run");
  KVEVICT_EXPECTS(c.what != role::position || (c.type == dtype::i32 && m.run_bytes >= 4), "validate: positions are ",
                  name_of(c.type), "; give int32 positions, one per slot");
}

template <class Entry> void check_range(layer_view<Entry> const& v, component const& c) {
  row_map const& m = c.rows;
  bool const by_address = page_table<Entry>::holds_pointers;
  std::int64_t const last = reach(m, v.pages.layers, pool_pages<Entry>(c), v.heads(), v.pages.page_size);
  auto const base = by_address ? 0 : static_cast<std::int64_t>(reinterpret_cast<std::intptr_t>(m.base));
  KVEVICT_EXPECTS(last >= 0 && base <= std::numeric_limits<std::int64_t>::max() - last,
                  "validate: the largest address of component ", name_of(c.what),
                  " does not fit into 64 bits; strides are bytes, page_count pages: correct them");
  std::int64_t const e = size_of(c.type);
  KVEVICT_EXPECTS((base + m.offset) % e == 0 && m.page_stride % e == 0 && m.head_stride % e == 0 &&
                      m.slot_stride % e == 0 && m.run_stride % e == 0 && m.layer_stride % e == 0,
                  "validate: base + offset or a stride of component ", name_of(c.what), " is not a multiple of its ", e,
                  "-byte elements; strides are bytes, and elements must be aligned");
}

/// An alias lies inside the row that is moved for it.
template <class Entry> void check_alias(layer_view<Entry> const& v, component const& c) {
  bool const known = c.alias_of >= 0 && c.alias_of < v.component_count && v.begin()[c.alias_of].alias_of < 0;
  KVEVICT_EXPECTS(known, "validate: component ", name_of(c.what), " is an alias of component ", c.alias_of,
                  ", which is none or an alias itself; name the component that owns the bytes");
  row_map const &a = c.rows, &o = v.begin()[c.alias_of].rows;
  bool const alike = a.base == o.base && a.page_stride == o.page_stride && a.head_stride == o.head_stride &&
                     a.slot_stride == o.slot_stride && a.layer_stride == o.layer_stride;
  bool const inside =
      a.n_runs == 1 && o.n_runs == 1
          ? a.offset >= o.offset && a.offset + a.run_bytes <= o.offset + o.run_bytes
          : a.offset == o.offset && a.run_bytes == o.run_bytes && a.n_runs <= o.n_runs && a.run_stride == o.run_stride;
  KVEVICT_EXPECTS(alike && inside, "validate: component ", name_of(c.what), " is declared an alias of ",
                  name_of(v.begin()[c.alias_of].what),
                  " but its rows do not lie inside those; give it their base and strides, or drop alias_of");
}

template <class Entry> void check_components(layer_view<Entry> const& v) {
  for (component const& c : v) {
    check_strides(v, c);
    check_range(v, c);
    if (c.alias_of != -1) {
      check_alias(v, c);
      continue;
    }
    KVEVICT_EXPECTS(footprint_of(v, c).is_nested() || interleaving(v, c) != 0, "validate: rows of component ",
                    name_of(c.what), " overlap each other: a stride is smaller than what it steps over (",
                    c.rows.row_bytes(), " bytes a row, slot_stride ", c.rows.slot_stride, ", head_stride ",
                    c.rows.head_stride, ", page_stride ", c.rows.page_stride, "); correct the strides");
    for (component const* d = v.begin(); d != &c; ++d)
      KVEVICT_EXPECTS(d->alias_of != -1 || !overlap(footprint_of(v, c), footprint_of(v, *d)), "validate: components ",
                      name_of(d->what), " and ", name_of(c.what),
                      " overlap; correct base, offset or strides, or declare alias_of when they are the same bytes");
  }
}

}  // namespace validation
}  // namespace KVEVICT_ABI
}  // namespace kvevict
