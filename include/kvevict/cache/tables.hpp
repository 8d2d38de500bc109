// SPDX-License-Identifier: Apache-2.0
// Caches whose components have pages of their own: each table as a view, with the components that go by it.
#pragma once

#include <cstddef>
#include <cstdint>

#include <kvevict/cache/layer_view.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// The components whose pages are named `offset` entries behind the table's, as a view by that table alone.
template <class Entry> constexpr layer_view<Entry> of_table(layer_view<Entry> const& v, std::int64_t offset) {
  layer_view<Entry> out = v;
  out.component_count = 0;
  if (!v.pages.is_identity()) out.pages.entries += offset;
  for (component const& c : v)
    if (c.table_offset == offset) out.components[static_cast<std::size_t>(out.component_count++)] = c.with_table(0);
  return out;
}

/// f(view) for every table that components go by, K's first; aliases are with what they are aliases of, and count as
/// such, whatever its index is then.
template <class Entry, class F> void each_table(layer_view<Entry> const& v, F&& f) {
  if (v.has_one_table()) return f(v);
  for (component const* c = v.begin(); c != v.end(); ++c) {
    bool first = true;
    for (component const* d = v.begin(); d != c; ++d) first = first && d->table_offset != c->table_offset;
    if (first) f(of_table(v, c->table_offset));
  }
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
