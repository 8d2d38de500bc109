// SPDX-License-Identifier: Apache-2.0
// What verbs have in common that write no page: their checks, and rows of the table that heads or layers share.
#pragma once

#include <algorithm>
#include <cstdint>

#include <kvevict/apply/moves.hpp>
#include <kvevict/cache/keep_set.hpp>
#include <kvevict/cache/validate.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace moves {

/// The rows of a page table, of which heads and layers may share one.
///
///   row(b, h) = layer·of_layer + (per_head ? s·heads + h : s)        layer 0 where all layers go by one table
struct table_rows {
  std::int64_t layers, of_layer;
  bool per_head;

  template <class Entry>
  explicit constexpr table_rows(page_table<Entry> const& t)
      : layers(t.layer_stride == 0 ? 1 : t.layers),
        of_layer(std::int64_t{t.sequences / t.layers} * (t.per_head() || t.heads == 0 ? t.heads : 1)),
        per_head(t.per_head()) {}

  constexpr std::int64_t count() const { return layers * of_layer; }
  template <class Entry> constexpr std::int64_t row(page_table<Entry> const& t, std::int64_t r) const {
    auto const b = static_cast<std::int32_t>(r / t.heads), h = static_cast<std::int32_t>(r % t.heads);
    std::int64_t const s = t.sequence_of(b);
    return (layers == 1 ? 0 : t.layer_of(b)) * of_layer + (per_head ? s * t.heads + h : s);
  }
  /// Row b·heads + h of the view that is the first one of its table row: r itself, or that of head 0 or of layer 0.
  template <class Entry> constexpr std::int64_t first(page_table<Entry> const& t, std::int64_t r) const {
    auto const b = static_cast<std::int32_t>(r / t.heads), h = static_cast<std::int32_t>(r % t.heads);
    return std::int64_t{layers == 1 ? t.sequence_of(b) : b} * t.heads + (per_head ? h : 0);
  }
};

inline bool same_tokens(keep_set const& keep, std::int64_t r, std::int64_t s) {
  slice<std::int32_t const> const a = keep.row(r), b = keep.row(s);
  return std::equal(a.begin(), a.end(), b.begin(), b.end());
}

/// New tables name the pages of one table. A cache without a token may have none: its table is an empty tensor, or what
/// an eviction of everything left. Of a view that validate() has accepted.
template <class Entry> void expect_table(char const* verb, layer_view<Entry> const& v) {
  for (std::int64_t r = 0; r < v.rows() && v.pages.is_identity(); ++r)
    KVEVICT_EXPECTS(v.length(static_cast<std::int32_t>(r / v.heads()), static_cast<std::int32_t>(r % v.heads())) == 0,
                    verb, ": a contiguous cache has no page table; compact the cache, or mask what is not kept");
  for (component const& c : v)
    KVEVICT_EXPECTS(c.table_offset == 0, verb, ": component ", name_of(c.what),
                    " has pages of its own, and the new table would name K's alone; compact the cache, or mask what "
                    "is not kept");
}

/// An entry of a table goes, or stays, for all heads and layers that go by it: they have one length and keep one set.
template <class Entry> void expect_one_set(char const* verb, layer_view<Entry> const& v, keep_set const& keep) {
  table_rows const rows(v.pages);
  for (std::int64_t r = 0; r < v.rows(); ++r) {
    std::int64_t const first = rows.first(v.pages, r);
    std::int32_t const n = keep.lengths[static_cast<std::size_t>(r)],
                       of_first = keep.lengths[static_cast<std::size_t>(first)];
    KVEVICT_EXPECTS(n == of_first, verb, ": ", messages::row(r / v.heads(), r % v.heads()), " has ", n, " tokens and ",
                    contract::text_of(messages::row(first / v.heads(), first % v.heads())), " ", of_first,
                    ", but they share a page table; evict both together from the first plan on, by "
                    ".with(layers::together{}), or give each its own table");
    KVEVICT_EXPECTS(same_tokens(keep, r, first), verb, ": ", messages::row(r / v.heads(), r % v.heads()), " and ",
                    contract::text_of(messages::row(first / v.heads(), first % v.heads())),
                    " keep different tokens but share a page table; use a policy with one set for both, by "
                    ".with(heads::together{}) or .with(layers::together{}), or give each its own table");
  }
}

}  // namespace moves
}  // namespace KVEVICT_ABI
}  // namespace kvevict
