// SPDX-License-Identifier: Apache-2.0
// Checks of a table of ids: pages in their pool, and no two that share bytes.
#pragma once

#include <algorithm>
#include <cstdint>

#include <kvevict/cache/validate_places.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace validation {

/// Where ids count less than a page (rows, blocks), a pool is page_count pieces of page_stride bytes at most. Strides
/// below that lie within a piece, those that reach behind all pieces lead to another pool; the others step over pieces,
/// so that the last slot of a page may lie behind the pool.
template <class Entry> struct pool_end {
  std::int64_t slack = 0, a_layer = 0, a_head = 0;  // bytes that a page takes behind those of its id

  pool_end(layer_view<Entry> const& v, component const& c) {
    row_map const& m = c.rows;
    std::int64_t const extents[] = {v.pages.page_size, m.n_runs, v.heads(), v.pages.layers},
                       strides[] = {m.slot_stride, m.run_stride, m.head_stride, m.layer_stride};
    std::int64_t piece = m.run_bytes;
    for (int i = 0; i < 4; ++i) piece += strides[i] < m.page_stride ? (extents[i] - 1) * strides[i] : 0;
    std::int64_t const end = (m.page_count - 1) * m.page_stride + std::min(piece, m.page_stride);
    slack = std::max<std::int64_t>(0, piece - m.page_stride);
    for (int i = 0; i < 4; ++i) {
      if (extents[i] <= 1 || strides[i] < m.page_stride || strides[i] >= end) continue;
      if (i == 3)
        a_layer = strides[i];
      else if (i == 2 && v.pages.per_head())
        a_head = strides[i];
      else
        slack += (extents[i] - 1) * strides[i];
    }
  }
};
template <class Entry> void check_pool_ends(layer_view<Entry> const& v) {
  for (component const& c : v) {
    row_map const& m = c.rows;
    id_rule const rule = rule_of(v, c);
    if (c.alias_of != -1 || m.page_stride == 0 || (rule.pool >= 0 && rule.slots == 1)) continue;
    pool_end<Entry> const end(v, c);
    for_each_table_row(v, [&](std::int32_t b, std::int32_t h) {
      std::int64_t const behind = end.slack + v.pages.layer_of(b) * end.a_layer + h * end.a_head;
      for (std::int64_t i = 0, n = pages_in_use(v, b, h); i < n; ++i) {
        auto const id = static_cast<std::int64_t>(v.pages.entry(b, h, i));
        KVEVICT_EXPECTS(behind <= (m.page_count - 1 - id) * m.page_stride, "validate: page ", i, " of ",
                        messages::row(b, h), " has id ", id, " and reaches behind the ", m.page_count,
                        " pages of component ", name_of(c.what), " (page_stride ", m.page_stride, ", slot_stride ",
                        m.slot_stride, ", head_stride ", m.head_stride, ", layer_stride ", m.layer_stride,
                        "); ids that count rows need page_count to count them, too, and layers lie behind all pages: "
                        "correct strides, page_count or the table");
      }
    });
  }
}

template <class Entry> void check_ids(layer_view<Entry> const& v, arena& memory, page_use use) {
  named_ids const ids = check_ids_in_range(v);
  bool const plain = ids.allowed && find_doubtful(v).c == nullptr;
  doubles found = doubles::none;
  if (!v.pages.is_identity() && (plain || use == page_use::read)) found = find_doubles(v, ids.end, memory, use);
  if (found == doubles::common) {
    frame scratch(memory);
    return check_ids(only_read(v, scratch), memory, page_use::written);
  }
  if (plain && found == doubles::none) return;
  check_pool_ends(v);
  check_places(v, memory);
}

}  // namespace validation
}  // namespace KVEVICT_ABI
}  // namespace kvevict
