// SPDX-License-Identifier: Apache-2.0
// Where the row of one (page, head, slot) lives: one affine map in bytes reaches every engine's layout.
#pragma once

#include <cstddef>
#include <cstdint>

#include <kvevict/core/abi.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// A row is `n_runs` runs of `run_bytes`, `run_stride` apart; most caches have one run, x-packed and transposed ones
/// many.
///
///   byte address of run r = base + offset + layer·layer_stride + page·page_stride + head·head_stride +
///   slot·slot_stride + r·run_stride
///
/// All strides are bytes in int64 (pools pass 2³¹ elements). With a pointer table the entry takes the place of base +
/// page·page_stride.
struct row_map {
  std::byte* base = nullptr;
  std::int64_t offset = 0;
  // pages in the pool, or rows or blocks where ids count those; table entries must be below it, with all their slots
  std::int64_t page_count = 0;
  std::int64_t page_stride = 0;
  std::int64_t head_stride = 0;  // 0: one row for all heads (MLA, shared positions), or per-head tables
  std::int64_t slot_stride = 0;
  std::int64_t run_stride = 0;
  std::int32_t run_bytes = 0;
  std::int32_t n_runs = 1;
  std::int64_t layer_stride = 0;  // from a layer of a stack to the next, see page_table::layers

  constexpr std::int64_t row_bytes() const { return std::int64_t{run_bytes} * n_runs; }
  /// The heads of a token are nearer than the tokens of a head.
  constexpr bool heads_together() const { return head_stride != 0 && head_stride < slot_stride; }

  /// Bytes from the start of a row to its unit u; every run is a whole number of units of `bytes`.
  constexpr std::int64_t unit_offset(std::int32_t u, std::int32_t bytes) const {
    if (n_runs == 1) return std::int64_t{u} * bytes;
    std::int32_t const a_run = run_bytes / bytes, run = u / a_run;
    return run * run_stride + (u - run * a_run) * std::int64_t{bytes};
  }

  template <class Id> constexpr std::byte* page(Id id) const {
    return base + (offset + static_cast<std::int64_t>(id) * page_stride);
  }
  constexpr std::byte* page(std::byte* start) const { return start + offset; }

  constexpr std::int64_t row_offset(std::int64_t layer, std::int64_t head, std::int64_t slot) const {
    return layer * layer_stride + head * head_stride + slot * slot_stride;
  }
};

}  // namespace KVEVICT_ABI
}  // namespace kvevict
