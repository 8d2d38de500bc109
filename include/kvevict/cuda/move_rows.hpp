// SPDX-License-Identifier: Apache-2.0
// Moves the kept tokens of every row to its front, in every component.
#pragma once

#include <cstdint>

#include <kvevict/cuda/keep_set.hpp>
#include <kvevict/cuda/kept_row.hpp>
#include <kvevict/cuda/rows.hpp>

namespace kvevict {
inline namespace v0 {
namespace cuda {

/// Bytes of a row move independently of its other bytes, so a row of the cache is cut into slices of up to `slice` bytes and each has its own block:
/// (heads × components × slices) blocks work on one sequence, and a stable move needs no more than a block's order.
struct moving {
  static constexpr std::int32_t threads = 256, deep = 4;  // each thread has `deep` units under way
  static constexpr std::int32_t slice = 64;
};

/// `Unit` is what one thread moves at once: 16 bytes where addresses allow, down to one.
///
///   stable      the block goes over the row in batches: all read, barrier, all write, barrier; a batch's destinations lie before the
///               sources of the next
///   fill_holes  sources and destinations are disjoint: every batch has a block of its own
template <class Unit, class Entry> struct move_rows_kernel {
  static constexpr int max_threads = moving::threads;
  watched watch;
  layer_view<Entry> v;
  component c;
  std::int32_t const *tokens, *counts;
  std::int64_t stride;
  compaction mode;
  std::uint32_t batches, slices;     // of a row: of its moves (1 when stable), of its bytes
  std::int32_t units, units_a_slice;  // of a row

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (watch.stopped(t)) return;
    std::uint32_t const at = t.block().x;
    std::int64_t const r = at / (batches * slices);
    auto const b = static_cast<std::int32_t>(r / v.heads()), h = static_cast<std::int32_t>(r % v.heads());
    if (h != 0 && v.shared_by_heads(c)) return;
    kept_row const row(tokens + r * stride, counts[r], mode);
    std::int32_t const first = static_cast<std::int32_t>(at / batches % slices) * units_a_slice;
    std::int32_t const wide = std::min(units_a_slice, units - first), batch = moving::threads * moving::deep / wide;  // moves
    std::int32_t const from = static_cast<std::int32_t>(at % batches) * batch;
    std::int32_t const end = mode == compaction::stable ? row.moves() : std::min(row.moves(), from + batch);
    for (std::int32_t i = from; i < end; i += batch) step(t, row, b, h, i, std::min(i + batch, end), first, wide);
  }

 private:
  KVEVICT_DEVICE void step(thread& t, kept_row const& row, std::int32_t b, std::int32_t h, std::int32_t i, std::int32_t end, std::int32_t first,
                           std::int32_t wide) const {
    Unit held[moving::deep];
    std::int32_t const items = (end - i) * wide;
    KVEVICT_UNROLL
    for (std::int32_t k = 0; k < moving::deep; ++k)
      if (std::int32_t const x = static_cast<std::int32_t>(t.rank()) + k * moving::threads; x < items)
        held[k] = *unit(b, h, row.source(i + x / wide), first + x % wide);
    if (mode == compaction::stable) t.sync_block();
    KVEVICT_UNROLL
    for (std::int32_t k = 0; k < moving::deep; ++k)
      if (std::int32_t const x = static_cast<std::int32_t>(t.rank()) + k * moving::threads; x < items)
        *unit(b, h, row.destination(i + x / wide), first + x % wide) = held[k];
    if (mode == compaction::stable) t.sync_block();
  }
  /// Unit u of the row of token j; runs follow each other.
  KVEVICT_DEVICE Unit* unit(std::int32_t b, std::int32_t h, std::int64_t j, std::int32_t u) const {
    auto const a_run = c.rows.run_bytes / static_cast<std::int32_t>(sizeof(Unit));
    return reinterpret_cast<Unit*>(v.row(c, b, h, j) + u / a_run * c.rows.run_stride) + u % a_run;
  }
};

/// The largest power of two up to 16 that divides every address and the length of a run of this component.
template <class Entry> std::int32_t unit_bytes(layer_view<Entry> const& v, component const& c) {
  std::uint64_t bits = 16u | static_cast<std::uint64_t>(c.rows.offset | c.rows.page_stride | c.rows.head_stride | c.rows.slot_stride |
                                                c.rows.layer_stride | c.rows.run_bytes);
  if (c.rows.n_runs > 1) bits |= static_cast<std::uint64_t>(c.rows.run_stride);
  bits |= page_table<Entry>::holds_pointers ? static_cast<std::uint64_t>(std::max(size_of(c.type), v.pages.alignment)) : reinterpret_cast<std::uintptr_t>(c.rows.base);
  return static_cast<std::int32_t>(bits & (~bits + 1));
}

template <class Unit, class Entry>
void move_component(device& ctx, layer_view<Entry> const& v, component const& c, keep_set const& keep, compaction mode) {
  constexpr auto size = static_cast<std::int32_t>(sizeof(Unit));
  std::int32_t const units = static_cast<std::int32_t>(c.rows.row_bytes()) / size, wide = std::min(units, std::max(1, moving::slice / size));
  std::uint32_t const slices = blocks_for(units, wide);
  std::uint32_t const batches = mode == compaction::stable ? 1 : blocks_for(keep.stride, moving::threads * moving::deep / wide);
  ctx.launch({static_cast<std::uint32_t>(v.rows()) * slices * batches}, {moving::threads}, 0,
             move_rows_kernel<Unit, Entry>{ctx.watch(), v, c, keep.tokens, keep.counts, keep.stride, mode, batches, slices, units, wide});
}

/// One launch per component that owns its bytes; reads and writes moves × row bytes.
template <class Entry> void move_rows(device& ctx, layer_view<Entry> const& v, keep_set const& keep, compaction mode) {
  for (component const& c : v) {
    if (c.alias_of >= 0) continue;
    switch (unit_bytes(v, c)) {
      case 16: move_component<vec128>(ctx, v, c, keep, mode); break;
      case 8: move_component<std::uint64_t>(ctx, v, c, keep, mode); break;
      case 4: move_component<std::uint32_t>(ctx, v, c, keep, mode); break;
      case 2: move_component<std::uint16_t>(ctx, v, c, keep, mode); break;
      default: move_component<std::uint8_t>(ctx, v, c, keep, mode);
    }
  }
}

}  // namespace cuda
}  // namespace v0
}  // namespace kvevict
