// SPDX-License-Identifier: Apache-2.0
// Checks of a view's page ids: in range, none twice where it would be written twice.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include <kvevict/cache/layer_view.hpp>
#include <kvevict/cache/validate_components.hpp>
#include <kvevict/core/contract.hpp>
#include <kvevict/core/fill.hpp>
#include <kvevict/core/host.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace validation {

template <class Entry> constexpr std::int64_t pages_in_use(layer_view<Entry> const& v, std::int32_t b, std::int32_t h) {
  return (std::int64_t{v.length(b, h)} + v.pages.page_size - 1) / v.pages.page_size;
}

/// Pages at the front of a row that nobody writes.
template <class Entry>
constexpr std::int64_t read_only_pages(layer_view<Entry> const& v, std::int32_t b, std::int32_t h) {
  std::int64_t const fixed = v.read_only_tokens(b);
  return fixed >= v.length(b, h) ? pages_in_use(v, b, h) : fixed / v.pages.page_size;
}

/// Whether one page id means different bytes in each layer of a stack.
template <class Entry> constexpr bool layers_apart(layer_view<Entry> const& v) {
  bool apart = v.pages.layers > 1;
  for (component const& c : v) apart = apart && c.rows.layer_stride != 0;
  return apart;
}

/// f(b, h) for every row of the table: the heads of a shared one count once.
template <class Entry, class F> void for_each_table_row(layer_view<Entry> const& v, F f) {
  for (std::int32_t b = 0; b < v.sequences(); ++b)
    for (std::int32_t h = 0; h < (v.pages.per_head() ? v.heads() : 1); ++h) f(b, h);
}

/// Says who else uses the page of entry i of row (b, h). Only on the way to an error, so it searches.
template <class Entry> void violate_double(layer_view<Entry> const& v, std::int32_t b, std::int32_t h, std::int64_t i) {
  Entry const id = v.pages.entry(b, h, i);
  for (std::int64_t j = 0; j < pages_in_use(v, b, h); ++j)
    if (j != i && v.pages.entry(b, h, j) == id)
      contract::violate("validate: pages ", std::min(i, j), " and ", std::max(i, j), " of sequence ", b, ", head ", h,
                        " are the same page; a row uses a page once, correct the table");
  for_each_table_row(v, [&](std::int32_t b2, std::int32_t h2) {
    for (std::int64_t j = 0; j < pages_in_use(v, b2, h2); ++j)
      if ((b2 != b || h2 != h) && (!layers_apart(v) || v.pages.layer_of(b2) == v.pages.layer_of(b)) &&
          v.pages.entry(b2, h2, j) == id)
        contract::violate("validate: page ", i, " of sequence ", b, ", head ", h, " is also page ", j, " of sequence ",
                          b2, ", head ", h2,
                          " and would be written by both; copy it, or declare the shared front with read_only");
  });
}

/// What an integer id must satisfy, worked out once per view.
struct id_rule {
  std::int64_t pool = std::numeric_limits<std::int64_t>::max();  // ids are below it
  // and id / period a multiple of slots, see interleaving()
  std::int64_t period = 1, slots = 1;

  constexpr bool allows(std::int64_t id) const {
    return id >= 0 && id < pool && (slots == 1 || id / period % slots == 0);
  }
};

template <class Entry> id_rule rule_of(layer_view<Entry> const& v, component const& c) {
  if (c.alias_of != -1 || footprint_of(v, c).is_nested()) return {c.rows.page_count};
  return {c.rows.page_count, interleaving(v, c), v.pages.page_size};
}

template <class Entry>
void check_id(layer_view<Entry> const& v, component const& c, std::int32_t b, std::int32_t h, std::int64_t i) {
  std::int64_t const id = static_cast<std::int64_t>(v.pages.entry(b, h, i));
  id_rule const rule = rule_of(v, c);
  KVEVICT_EXPECTS(id >= 0 && id < rule.pool, "validate: page ", i, " of sequence ", b, ", head ", h, " has id ", id,
                  ", but component ", name_of(c.what), " has ", rule.pool,
                  " pages; correct the table, index_mask or page_count");
  KVEVICT_EXPECTS(rule.allows(id), "validate: page ", i, " of sequence ", b, ", head ", h, " has id ", id,
                  ", which does not start a page of component ", name_of(c.what),
                  "; ids count rows: page·slots·heads + head");
}

/// Pages of a pool that a bitmap is made for: ids of int32, and as many of int64, of which each names a row of some
/// bytes at least.
inline constexpr std::int64_t most_pool_pages = std::int64_t{1} << 31;

/// All ids of all rows; returns 1 + the largest one.
template <class Entry> std::int64_t check_ids_in_range(layer_view<Entry> const& v) {
  id_rule rules[layer_view<Entry>::max_components];
  std::int32_t count = 0;
  std::int64_t named = 0;
  id_rule all;
  for (component const& c : v) {
    id_rule const rule = rule_of(v, c);
    all.pool = std::min(all.pool, rule.pool);
    if (rule.slots != 1) rules[count++] = rule;
  }
  for_each_table_row(v, [&](std::int32_t b, std::int32_t h) {
    for (std::int64_t i = 0, n = pages_in_use(v, b, h); i < n; ++i) {
      std::int64_t const id = static_cast<std::int64_t>(v.pages.entry(b, h, i));
      bool sound = all.allows(id);
      for (std::int32_t k = 0; k < count; ++k) sound = sound && rules[k].allows(id);
      named = std::max(named, id + 1);
      if (sound) continue;
      for (component const& c : v) check_id(v, c, b, h, i);
    }
  });
  KVEVICT_EXPECTS(named <= most_pool_pages, "validate: a row uses page ", named - 1,
                  "; ids count pages and lie below 2^31, correct the table or index_mask");
  return named;
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

template <class Entry> void check_ids(layer_view<Entry> const& v, arena& memory) {
  std::int64_t const pool = check_ids_in_range(v), apart = layers_apart(v) ? pool : 0,
                     bits = apart == 0 ? pool : pool * v.pages.layers;
  if (v.pages.is_identity()) return;
  frame scratch(memory);
  bitmap written(scratch, bits), seen(scratch, v.read_only == nullptr ? 0 : bits);
  auto const page = [&](std::int32_t b, std::int32_t h, std::int64_t i) {
    return v.pages.layer_of(b) * apart + static_cast<std::int64_t>(v.pages.entry(b, h, i));
  };
  for_each_table_row(v, [&](std::int32_t b, std::int32_t h) {
    for (std::int64_t i = read_only_pages(v, b, h), n = pages_in_use(v, b, h); i < n; ++i) {
      std::int64_t const id = page(b, h, i);
      if (written.has(id)) violate_double(v, b, h, i);
      written.set(id);
    }
  });
  if (v.read_only == nullptr) return;
  for_each_table_row(v, [&](std::int32_t b, std::int32_t h) {
    std::int64_t const n = read_only_pages(v, b, h);
    for (std::int64_t i = 0; i < n; ++i) {
      std::int64_t const id = page(b, h, i);
      if (written.has(id) || seen.has(id)) violate_double(v, b, h, i);
      seen.set(id);
    }
    for (std::int64_t i = 0; i < n; ++i) seen.clear(page(b, h, i));
  });
}

}  // namespace validation
}  // namespace KVEVICT_ABI
}  // namespace kvevict
