// SPDX-License-Identifier: Apache-2.0
// The bytes that a component's rows cover, as nested strides: whether rows overlap each other or those of another
// component.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include <kvevict/cache/row_map.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// Runs of `run` bytes at start + Σ i_k·stride_k, 0 ≤ i_k < extent_k; dimensions by ascending stride.
struct footprint {
  struct dimension {
    std::int64_t extent, stride;
  };

  std::int64_t start = 0, run = 0;
  dimension dimensions[6] = {};  // layers, pages or blocks and rows of a block, heads, slots, runs
  std::int32_t count = 0;

  void add(std::int64_t extent, std::int64_t stride) {
    if (extent <= 1 || stride == 0) return;
    std::int32_t i = count++;
    for (; i > 0 && dimensions[i - 1].stride > stride; --i) dimensions[i] = dimensions[i - 1];
    dimensions[i] = {extent, stride};
  }
  /// The one of the largest stride; a single run has {1, 0}.
  dimension outer() const { return count > 0 ? dimensions[count - 1] : dimension{1, 0}; }
  footprint inner(std::int64_t index) const {
    footprint f = *this;
    f.start += index * outer().stride;
    --f.count;
    return f;
  }
  std::int64_t span() const {
    std::int64_t bytes = run;
    for (std::int32_t i = 0; i < count; ++i) bytes += (dimensions[i].extent - 1) * dimensions[i].stride;
    return bytes;
  }
  /// True when no two rows share a byte, as every stride steps over all that lies within it.
  bool is_nested() const {
    std::int64_t bytes = run;
    for (std::int32_t i = 0; i < count; ++i) {
      if (dimensions[i].stride < bytes) return false;
      bytes += (dimensions[i].extent - 1) * dimensions[i].stride;
    }
    return true;
  }
};

/// The largest byte offset that the map reaches, or −1 when it does not fit into int64. Strides and extents are not
/// negative.
inline std::int64_t reach(row_map const& m, std::int64_t layers, std::int64_t pages, std::int64_t heads,
                          std::int64_t slots) {
  constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
  std::int64_t total = m.offset;
  auto const add = [&](std::int64_t extent, std::int64_t stride) {
    if (extent <= 1 || stride == 0 || total < 0) return;
    total = extent - 1 > (most - total) / stride ? -1 : total + (extent - 1) * stride;
  };
  add(layers, m.layer_stride);
  add(pages, m.page_stride);
  add(heads, m.head_stride);
  add(slots, m.slot_stride);
  add(m.n_runs, m.run_stride);
  add(2, m.run_bytes);  // from a run's begin to its end
  return total;
}

/// Bytes of all rows of `pages` pages; pages = 1 for tables of addresses, whose components are compared within one
/// page.
inline footprint footprint_of(row_map const& m, std::int64_t layers, std::int64_t pages, std::int64_t heads,
                              std::int64_t slots, bool by_address) {
  footprint f;
  f.start = (by_address ? 0 : static_cast<std::int64_t>(reinterpret_cast<std::intptr_t>(m.base))) + m.offset;
  f.run = m.run_bytes;
  f.add(layers, m.layer_stride);
  f.add(pages, m.page_stride);
  f.add(heads, m.head_stride);
  f.add(slots, m.slot_stride);
  f.add(m.n_runs, m.run_stride);
  return f;
}

namespace footprints {

constexpr std::int64_t floor_div(std::int64_t a, std::int64_t b) { return a / b - (a % b != 0 && a < 0 ? 1 : 0); }

/// Exact while `work` lasts, which it does for strides that nest; then true, to be on the safe side.
inline bool overlap(footprint const& a, footprint const& b, std::int32_t& work) {
  if (--work < 0) return true;
  if (a.start + a.span() <= b.start || b.start + b.span() <= a.start) return false;
  if (a.count == 0 && b.count == 0) return true;
  if (b.outer().stride > a.outer().stride) return overlap(b, a, work);
  auto const [extent, stride] = a.outer();
  bool const alike = b.outer().stride == stride;  // then only the difference of the two indices matters
  footprint const part_a = a.inner(0), part_b = alike ? b.inner(0) : b;
  std::int64_t const low = alike ? 1 - b.outer().extent : 0;
  std::int64_t const first = std::max(low, floor_div(part_b.start - part_a.start - part_a.span(), stride) + 1);
  std::int64_t const last = std::min(extent - 1, floor_div(part_b.start + part_b.span() - 1 - part_a.start, stride));
  for (std::int64_t i = first; i <= last; ++i)
    if (overlap(a.inner(i), part_b, work)) return true;
  return false;
}

}  // namespace footprints

/// Steps of a search that is exact as long as they last. Strides that nest take a handful.
inline constexpr std::int32_t overlap_steps = 4096, thorough_steps = 1 << 16;

/// True when a byte belongs to both, or when `steps` do not suffice to exclude it.
inline bool overlap(footprint const& a, footprint const& b, std::int32_t steps = overlap_steps) {
  return footprints::overlap(a, b, steps);
}

/// True when two rows share a byte, or when `steps` do not suffice to exclude it.
inline bool overlaps_itself(footprint f, std::int32_t steps = overlap_steps) {
  for (; f.count > 0 && !f.is_nested(); f = f.inner(0)) {
    footprint const first = f.inner(0);
    auto const [extent, stride] = f.outer();
    std::int64_t const bytes = first.span();
    for (std::int64_t k = 1; k < extent && k * stride < bytes; ++k)
      if (footprints::overlap(first, f.inner(k), steps)) return true;
  }
  return false;
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
