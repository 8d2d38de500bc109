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

/// Bytes of a row move independently of its other bytes, so a row of the cache may be cut into slices, each with blocks of its own.
struct moving {
  static constexpr std::int32_t threads = 256, deep = 4;  // each thread has `deep` units under way
  /// Units of a slice: short ones give a stable move of few rows more blocks, long ones have fewer destinations to look for.
  static constexpr std::int32_t most_units(compaction mode, std::int32_t unit_bytes) { return mode == compaction::stable ? std::max(1, 64 / unit_bytes) : 64; }
};

/// `Unit` is what one thread moves at once: 16 bytes where addresses allow, down to one.
///
///   stable      a block goes over a slice of the row in batches: all read, barrier, all write, barrier; a batch's destinations lie before the
///               sources of the next, and a block's order is all it needs
///   fill_holes  sources and destinations are disjoint: every batch has a block of its own
template <class Unit, class Entry> struct move_rows_kernel {
  static constexpr int max_threads = moving::threads;
  watched watch;
  layer_view<Entry> v;
  component c;
  std::int32_t const *tokens, *counts, *moves;
  std::int64_t stride;
  compaction mode;
  std::uint32_t batches, slices;      // of a row: of its moves (1 when stable), of its bytes
  std::int32_t units, units_a_slice;  // of a row

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (watch.stopped(t)) return;
    std::uint32_t const at = t.block().x;
    std::int64_t const r = at / (batches * slices);
    auto const b = static_cast<std::int32_t>(r / v.heads()), h = static_cast<std::int32_t>(r % v.heads());
    if (h != 0 && v.shared_by_heads(c)) return;
    KVEVICT_SHARED(t, std::int32_t, holes, moving::threads * moving::deep);
    kept_row const row(tokens + r * stride, counts[r], moves[r], mode);
    token_rows<Entry> const rows = v.rows_of(c, b, h);
    std::int32_t const first = static_cast<std::int32_t>(at / batches % slices) * units_a_slice;
    std::int32_t const wide = std::min(units_a_slice, units - first), batch = moving::threads * moving::deep / wide;  // moves
    std::int32_t const from = static_cast<std::int32_t>(at % batches) * batch;
    std::int32_t const end = mode == compaction::stable ? row.moves() : std::min(row.moves(), from + batch);
    for (std::int32_t i = from; i < end; i += batch) step(t, row, rows, i, std::min(batch, end - i), first, wide, holes);
  }

 private:
  /// Units [first, first + wide) of `count` moves from move i on.
  KVEVICT_DEVICE void step(thread& t, kept_row const& row, token_rows<Entry> const& rows, std::int32_t i, std::int32_t count, std::int32_t first, std::int32_t wide,
                           std::int32_t* holes) const {
    constexpr auto size = static_cast<std::int32_t>(sizeof(Unit));
    auto const rank = static_cast<std::int32_t>(t.rank());
    Unit held[moving::deep];
    std::int32_t move[moving::deep];  // beyond the last one that again, which is read, not written: so that no read waits for another's branch
    std::int64_t offset[moving::deep];
    KVEVICT_UNROLL
    for (std::int32_t k = 0; k < moving::deep; ++k) {
      std::int32_t const x = rank + k * moving::threads, m = x / wide;
      move[k] = std::min(m, count - 1), offset[k] = c.rows.unit_offset(first + x - m * wide, size);
    }
    KVEVICT_UNROLL
    for (std::int32_t k = 0; k < moving::deep; ++k) held[k] = *reinterpret_cast<Unit const*>(rows(row.source(i + move[k])) + offset[k]);
    if (mode == compaction::fill_holes)  // while the units arrive
      for (std::int32_t m = rank; m < count; m += moving::threads) holes[m] = row.destination(i + m);
    t.sync_block();
    KVEVICT_UNROLL
    for (std::int32_t k = 0; k < moving::deep; ++k) {
      std::byte* const to = rows(mode == compaction::stable ? row.destination(i + move[k]) : holes[move[k]]) + offset[k];
      if (rank + k * moving::threads < count * wide) *reinterpret_cast<Unit*>(to) = held[k];
    }
    if (mode == compaction::stable) t.sync_block();
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
void move_component(device& ctx, layer_view<Entry> const& v, component const& c, keep_set const& keep, std::int32_t const* moves, compaction mode) {
  constexpr auto size = static_cast<std::int32_t>(sizeof(Unit));
  std::int32_t const units = static_cast<std::int32_t>(c.rows.row_bytes()) / size;
  std::uint32_t const slices = blocks_for(units, moving::most_units(mode, size));
  auto const wide = static_cast<std::int32_t>(blocks_for(units, slices));
  std::uint32_t const batches = mode == compaction::stable ? 1 : blocks_for(keep.stride, moving::threads * moving::deep / wide);
  ctx.launch({static_cast<std::uint32_t>(v.rows()) * slices * batches}, {moving::threads}, 0,
             move_rows_kernel<Unit, Entry>{ctx.watch(), v, c, keep.tokens, keep.counts, moves, keep.stride, mode, batches, slices, units, wide});
}

/// One launch per component that owns its bytes; reads and writes moves × row bytes. `moves` (B·H): how many each row has.
template <class Entry> void move_rows(device& ctx, layer_view<Entry> const& v, keep_set const& keep, std::int32_t const* moves, compaction mode) {
  for (component const& c : v) {
    if (c.alias_of >= 0) continue;
    switch (unit_bytes(v, c)) {
      case 16: move_component<vec128>(ctx, v, c, keep, moves, mode); break;
      case 8: move_component<std::uint64_t>(ctx, v, c, keep, moves, mode); break;
      case 4: move_component<std::uint32_t>(ctx, v, c, keep, moves, mode); break;
      case 2: move_component<std::uint16_t>(ctx, v, c, keep, moves, mode); break;
      default: move_component<std::uint8_t>(ctx, v, c, keep, moves, mode);
    }
  }
}

}  // namespace cuda
}  // namespace v0
}  // namespace kvevict
