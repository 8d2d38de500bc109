// SPDX-License-Identifier: Apache-2.0
// Checks of a view's components: strides, alignment, range; and whether strides alone show that no byte belongs to two
// rows, whatever pages are in use.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

#include <kvevict/cache/footprint.hpp>
#include <kvevict/cache/layer_view.hpp>
#include <kvevict/cache/validate_quantised.hpp>
#include <kvevict/core/contract.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace validation {

/// Pages that the strides of a component run over; one for tables of addresses.
template <class Entry> constexpr std::int64_t pool_pages(component const& c) {
  return page_table<Entry>::holds_pointers ? 1 : c.rows.page_count;
}

/// All rows of the pool, of an address those of its page; all layers and heads.
template <class Entry> footprint footprint_of(layer_view<Entry> const& v, component const& c) {
  return kvevict::footprint_of(c.rows, v.pages.layers, pool_pages<Entry>(c), v.heads(), v.pages.page_size,
                               page_table<Entry>::holds_pointers);
}

/// What an integer id must satisfy, so that strides alone keep its page from any other, worked out once per view.
///
///   pages   an id is below the pool's pages, which lie apart
///   rows    ids count rows (LAYOUTS, head as batch: single-head pages of a cache whose heads interleave): `period` of
///           them are a slot of all heads, and a page starts every period·slots; its last slot lies in the pool, too
struct id_rule {
  std::int64_t pool = std::numeric_limits<std::int64_t>::max();
  std::int64_t period = 1, slots = 1;

  constexpr bool in_pool(std::int64_t id) const { return id >= 0 && id < pool && (slots - 1) * period < pool - id; }
  constexpr bool operator==(id_rule const& o) const { return pool == o.pool && period == o.period && slots == o.slots; }
  constexpr bool allows(std::int64_t id) const { return in_pool(id) && (slots == 1 || id / period % slots == 0); }
};

/// The rows that ids may name under a rule.
template <class Entry> footprint footprint_under(id_rule const& rule, layer_view<Entry> const& v, component const& c) {
  if (rule.slots == 1) return footprint_of(v, c);
  row_map const& m = c.rows;
  std::int64_t const a_page = rule.period * rule.slots;
  footprint f = kvevict::footprint_of(m, v.pages.layers, rule.period, v.heads(), v.pages.page_size, false);
  f.add(m.page_count / a_page + (m.page_count % a_page != 0 ? 1 : 0), a_page * m.page_stride);
  return f;
}

/// The rule of a component whose rows then lie apart; a pool of −1 when there is none.
template <class Entry> id_rule rule_of(layer_view<Entry> const& v, component const& c) {
  row_map const& m = c.rows;
  if (page_table<Entry>::holds_pointers) return {};
  footprint const pool = footprint_of(v, c);
  if (c.alias_of != -1 || pool.is_nested()) return {m.page_count};
  if (v.pages.page_size > 1 && m.page_stride > 0 && m.slot_stride >= m.page_stride &&
      m.slot_stride % m.page_stride == 0) {
    id_rule const rows{m.page_count, m.slot_stride / m.page_stride, v.pages.page_size};
    if (rows.period <= m.page_count / rows.slots && footprint_under(rows, v, c).is_nested()) return rows;
  }
  return {overlaps_itself(pool) ? -1 : m.page_count};
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
  KVEVICT_EXPECTS(v.pages.layers == 1 || !v.pages.is_identity() || m.layer_stride > 0 || v.shared_by_layers(c),
                  "validate: component ", name_of(c.what), " of a contiguous stack of ", v.pages.layers,
                  " layers has layer_stride 0, so that all would be one; set the bytes from layer to layer");
  KVEVICT_EXPECTS(m.n_runs <= 1 || m.run_stride > 0, "validate: component ", name_of(c.what), " has ", m.n_runs,
                  " runs a row and run_stride 0; set the bytes from run to run");
  KVEVICT_EXPECTS(c.table_offset == 0 || (c.what != role::k && !v.pages.is_identity()), "validate: component ",
                  name_of(c.what), " has pages of its own, ", c.table_offset,
                  " entries behind the table's; that one is K's, and a contiguous cache has none");
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
  std::int64_t const e = c.alignment();
  KVEVICT_EXPECTS((base + m.offset) % e == 0 && m.page_stride % e == 0 && m.head_stride % e == 0 &&
                      m.slot_stride % e == 0 && m.run_stride % e == 0 && m.layer_stride % e == 0,
                  "validate: base + offset or a stride of component ", name_of(c.what), " is not a multiple of its ", e,
                  "-byte elements or scales; strides are bytes, and both must be aligned");
}

/// An alias lies inside the row that is moved for it.
template <class Entry> void check_alias(layer_view<Entry> const& v, component const& c) {
  bool const known = c.alias_of >= 0 && c.alias_of < v.component_count && v.begin()[c.alias_of].alias_of < 0;
  KVEVICT_EXPECTS(known, "validate: component ", name_of(c.what), " is an alias of component ", c.alias_of,
                  ", which is none or an alias itself; name the component that owns the bytes");
  row_map const &a = c.rows, &o = v.begin()[c.alias_of].rows;
  bool const alike = c.table_offset == v.begin()[c.alias_of].table_offset && a.base == o.base &&
                     a.page_stride == o.page_stride && a.head_stride == o.head_stride &&
                     a.slot_stride == o.slot_stride && a.layer_stride == o.layer_stride;
  bool const inside =
      a.n_runs == 1 && o.n_runs == 1
          ? a.offset >= o.offset && a.offset + a.run_bytes <= o.offset + o.run_bytes
          : a.offset == o.offset && a.run_bytes == o.run_bytes && a.n_runs <= o.n_runs && a.run_stride == o.run_stride;
  KVEVICT_EXPECTS(alike && inside, "validate: component ", name_of(c.what), " is declared an alias of ",
                  name_of(v.begin()[c.alias_of].what),
                  " but its rows do not lie inside those; give it their base, strides and table, or drop alias_of");
}

template <class Entry> void check_components(layer_view<Entry> const& v) {
  for (component const& c : v) {
    check_strides(v, c);
    check_range(v, c);
    if (c.alias_of != -1) check_alias(v, c);
  }
  for (component const& c : v)
    if (c.is_quantised()) check_quantised(v, c);
}

/// Two components that strides do not keep apart, or one whose rows they do not; none: null.
struct doubtful {
  component const *c = nullptr, *d = nullptr;
};
template <class Entry> doubtful find_doubtful(layer_view<Entry> const& v) {
  id_rule rules[layer_view<Entry>::max_components];
  std::int32_t n = 0;
  for (component const& c : v) {
    id_rule const& rule = rules[n++] = rule_of(v, c);
    if (c.alias_of != -1) continue;
    if (rule.pool < 0 || (page_table<Entry>::holds_pointers && overlaps_itself(footprint_of(v, c)))) return {&c, &c};
    for (component const* d = v.begin(); d != &c; ++d)
      if (d->alias_of == -1 && overlap(footprint_under(rule, v, c), footprint_under(rules[d - v.begin()], v, *d)))
        return {d, &c};
  }
  return {};
}

/// Whether strides do not keep components of different tables apart, whatever their pages are: never those of
/// addresses.
template <class Entry> bool have_common_pool(layer_view<Entry> const& v) {
  for (component const& c : v)
    for (component const* d = v.begin(); d != &c; ++d)
      if (c.alias_of == -1 && d->alias_of == -1 && c.table_offset != d->table_offset &&
          (page_table<Entry>::holds_pointers || overlap(footprint_of(v, c), footprint_of(v, *d))))
        return true;
  return false;
}

[[noreturn]] inline void violate_rows(component const& c, std::string const& where) {
  contract::violate("validate: rows of component ", name_of(c.what), " overlap each other", where,
                    ": a stride is smaller than what it steps over (", c.rows.row_bytes(), " bytes a row, slot_stride ",
                    c.rows.slot_stride, ", head_stride ", c.rows.head_stride, ", page_stride ", c.rows.page_stride,
                    ", layer_stride ", c.rows.layer_stride, "); correct the strides, or the table");
}
[[noreturn]] inline void violate_components(component const& c, component const& d, std::string const& where) {
  contract::violate("validate: components ", name_of(c.what), " and ", name_of(d.what), " overlap", where,
                    "; correct base, offset or strides, or declare alias_of when they are the same bytes");
}

/// For a context that cannot look which pages are in use: strides alone must keep rows apart.
template <class Entry> void expect_rows_apart(layer_view<Entry> const& v) {
  KVEVICT_EXPECTS(
      !have_common_pool(v),
      "validate: components with pages of their own lie in one pool, and a device does "
      "not compare those; give each a pool and ids, or all one table where their pages lie at one distance");
  doubtful const found = find_doubtful(v);
  if (found.c == nullptr) return;
  if (found.c == found.d) violate_rows(*found.c, {});
  violate_components(*found.c, *found.d, {});
}

}  // namespace validation
}  // namespace KVEVICT_ABI
}  // namespace kvevict
