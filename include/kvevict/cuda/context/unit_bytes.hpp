// SPDX-License-Identifier: Apache-2.0
// How many bytes of a component's rows one instruction may read or write.
#pragma once

#include <algorithm>
#include <cstdint>

#include <kvevict/cache/layer_view.hpp>
#include <kvevict/cuda/shim/shim.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

/// The largest power of two up to 16 that divides every address and the length of a run of this component.
template <class Entry> std::int32_t unit_bytes(layer_view<Entry> const& v, component const& c) {
  std::uint64_t bits = 16u | static_cast<std::uint64_t>(c.rows.offset | c.rows.page_stride | c.rows.head_stride |
                                                        c.rows.slot_stride | c.rows.layer_stride | c.rows.run_bytes);
  if (c.rows.n_runs > 1) bits |= static_cast<std::uint64_t>(c.rows.run_stride);
  bits |= page_table<Entry>::holds_pointers ? static_cast<std::uint64_t>(std::max(c.alignment(), v.pages.alignment))
                                            : reinterpret_cast<std::uintptr_t>(c.rows.base);
  return static_cast<std::int32_t>(bits & (~bits + 1));
}

/// f(T{}) with the type of unit_bytes bytes.
template <class Entry, class F> void with_unit(layer_view<Entry> const& v, component const& c, F const& f) {
  switch (unit_bytes(v, c)) {
    case 16: return f(vec128{});
    case 8: return f(std::uint64_t{});
    case 4: return f(std::uint32_t{});
    case 2: return f(std::uint16_t{});
    default: return f(std::uint8_t{});
  }
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
