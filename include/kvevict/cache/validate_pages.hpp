// SPDX-License-Identifier: Apache-2.0
// The pages of a view: which are in use, which are written, and whether their ids are in range.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include <kvevict/cache/layer_view.hpp>
#include <kvevict/cache/validate_components.hpp>
#include <kvevict/core/contract.hpp>
#include <kvevict/core/view_messages.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// What a verb does with a view's pages. Those that are written must be one row's alone; where all are only read,
/// sequences may have pages in common: forks, and prefixes that are not declared.
enum class page_use : std::uint8_t { written, read };

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

/// The parts of a page that different rows may own: layers of a stack, heads with tables of their own, where every
/// component keeps them apart.
struct page_parts {
  std::int32_t layers = 1, heads = 1;
  // some component keeps them apart and another does not: two parts may then be apart although they count as one
  bool mixed = false;

  template <class Entry> static constexpr page_parts of(layer_view<Entry> const& v) {
    bool const stack = v.pages.layers > 1, own = v.pages.per_head() && v.heads() > 1;
    std::int32_t layers_apart = 0, heads_apart = 0, n = 0;
    for (component const& c : v)
      ++n, layers_apart += stack && (c.rows.layer_stride != 0 || v.shared_by_layers(c)),
          heads_apart += own && c.rows.head_stride != 0;
    return {layers_apart == n ? v.pages.layers : 1, heads_apart == n ? v.heads() : 1,
            layers_apart % n != 0 || heads_apart % n != 0};
  }
  constexpr std::int64_t count() const { return std::int64_t{layers} * heads; }
  template <class Entry>
  constexpr std::int64_t operator()(page_table<Entry> const& t, std::int32_t b, std::int32_t h) const {
    return std::int64_t{layers == 1 ? 0 : t.layer_of(b)} * heads + (heads == 1 ? 0 : h);
  }
};

/// f(b, h) for every row of the table: the heads of a shared one count once.
template <class Entry, class F> void for_each_table_row(layer_view<Entry> const& v, F f) {
  for (std::int32_t b = 0; b < v.sequences(); ++b)
    for (std::int32_t h = 0; h < (v.pages.per_head() ? v.heads() : 1); ++h) f(b, h);
}

template <class Entry> std::int64_t count_pages(layer_view<Entry> const& v) {
  std::int64_t n = 0;
  for_each_table_row(v, [&](std::int32_t b, std::int32_t h) { n += pages_in_use(v, b, h); });
  return n;
}

template <class Entry>
void check_id(layer_view<Entry> const& v, component const& c, std::int32_t b, std::int32_t h, std::int64_t i) {
  std::int64_t const id = static_cast<std::int64_t>(v.pages.entry(b, h, i));
  if (id < 0 || id >= c.rows.page_count) messages::page_unknown(i, b, h, id, name_of(c.what), c.rows.page_count);
}

/// Pages of a pool that a bitmap is made for: ids of int32, and as many of int64, of which each names a row of some
/// bytes at least.
inline constexpr std::int64_t most_pool_pages = std::int64_t{1} << 31;

struct named_ids {
  std::int64_t end = 0;  // 1 + the largest one
  bool allowed = true;   // by the rules, so that pages lie apart when ids differ
};

/// All ids of all rows.
template <class Entry> named_ids check_ids_in_range(layer_view<Entry> const& v) {
  id_rule rules[layer_view<Entry>::max_components];
  std::int32_t count = 0;
  named_ids out;
  std::int64_t pool = std::numeric_limits<std::int64_t>::max();
  for (component const& c : v) {
    id_rule const rule = rule_of(v, c);
    pool = std::min(pool, c.rows.page_count);
    bool const known = count > 0 && rules[count - 1] == rule;  // K's is V's, as a rule
    if (rule.slots != 1 && !known) rules[count++] = rule;
  }
  for_each_table_row(v, [&](std::int32_t b, std::int32_t h) {
    for (std::int64_t i = 0, n = pages_in_use(v, b, h); i < n; ++i) {
      std::int64_t const id = static_cast<std::int64_t>(v.pages.entry(b, h, i));
      if (id < 0 || id >= pool)
        for (component const& c : v) check_id(v, c, b, h, i);
      for (std::int32_t k = 0; k < count; ++k) out.allowed = out.allowed && rules[k].allows(id);
      out.end = std::max(out.end, id + 1);
    }
  });
  KVEVICT_EXPECTS(out.end <= most_pool_pages, "validate: a row uses page ", out.end - 1,
                  "; ids count pages and lie below 2^31, correct the table or index_mask");
  return out;
}

}  // namespace validation
}  // namespace KVEVICT_ABI
}  // namespace kvevict
