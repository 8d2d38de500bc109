// SPDX-License-Identifier: Apache-2.0
// Moves the kept tokens of every row to its front, in every component.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

#include <kvevict/cuda/apply/kept_row.hpp>
#include <kvevict/cuda/context/keep_set.hpp>
#include <kvevict/cuda/context/unit_bytes.hpp>
#include <kvevict/cuda/evidence/rows.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

/// Bytes of a row move independently of its other bytes, so a row of the cache may be cut into slices, each with blocks
/// of its own.
struct moving {
  static constexpr std::int32_t threads = 256, deep = 4;  // each thread has `deep` units under way
  static constexpr std::int32_t slice_bytes = 64;         // a slice has at least as many, where the row has
  // enough for every device; a launch has no more than it needs for so many
  static constexpr std::int64_t blocks = 1024;
};

/// `Unit` is what one thread moves at once: 16 bytes where addresses allow, down to one. Components whose rows are
/// equally long move together.
///
///   stable      a block goes over a slice of the row in batches: all read, barrier, all write, barrier; a batch's
///   destinations lie before the
///               sources of the next, and a block's order is all it needs
///   fill_holes  sources and destinations are disjoint: a row's batches are shared out to several blocks
///
/// Shapes   kept tokens (B·H, stride), counts, moves (B·H) → components (B·H, N, width), lengths (B·H).
template <class Unit, class Entry> struct move_rows_kernel {
  static constexpr int max_threads = moving::threads, least_blocks = 3;
  watched watch;
  layer_view<Entry> v;
  std::array<std::uint8_t, layer_view<Entry>::max_components> which;  // components
  std::int32_t const *tokens, *counts, *moves;
  std::int32_t* lengths;  // of the rows from now on, or null: written already
  std::int64_t stride;
  compaction mode;
  std::uint32_t rows, abreast = 1, slices = 1;  // blocks of a row: for its moves (1 when stable), for its bytes
  std::int32_t units = 1, units_a_slice = 1;    // of a row

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (watch.stopped(t)) return;
    std::uint32_t const at = t.block().x, part_of = at / abreast, row_of = part_of / slices, r = row_of % rows,
                        heads = static_cast<std::uint32_t>(v.heads());
    if (lengths != nullptr && t.linear_index() == 0 && row_of < rows && at % (abreast * slices) == 0)
      lengths[r] = counts[r];
    component const& c = v.begin()[which[row_of / rows]];
    auto const b = static_cast<std::int32_t>(r / heads), h = static_cast<std::int32_t>(r % heads);
    if (!v.owns(c, b, h)) return;
    KVEVICT_SHARED(t, std::int32_t, holes, moving::threads * moving::deep);
    kept_row const row(tokens + r * stride, counts[r], moves[r], mode);
    row_part const part{v.rows_of(c, b, h), c.rows, static_cast<std::int32_t>(part_of % slices) * units_a_slice};
    // moves
    std::int32_t const wide = std::min(units_a_slice, units - part.first),
                       batch = moving::threads * moving::deep / wide;
    for (std::int64_t i = std::int64_t{at - part_of * abreast} * batch; i < row.moves();
         i += std::int64_t{abreast} * batch) {
      auto const from = static_cast<std::int32_t>(i);
      step(t, row, part, from, std::min(batch, row.moves() - from), wide, holes);
    }
  }

 private:
  struct row_part {
    token_rows<Entry> rows;
    row_map const& map;
    std::int32_t first;  // unit
  };

  /// `wide` units of `count` moves from move i on.
  KVEVICT_DEVICE void step(thread& t, kept_row const& row, row_part const& part, std::int32_t i, std::int32_t count,
                           std::int32_t wide, std::int32_t* holes) const {
    constexpr auto size = static_cast<std::int32_t>(sizeof(Unit));
    auto const rank = static_cast<std::int32_t>(t.linear_index());
    Unit held[moving::deep];
    // beyond the last one that again, which is read, not written: so that no read waits for another's branch
    std::int32_t move[moving::deep];
    std::int64_t offset[moving::deep];
    std::byte* to[moving::deep];
    KVEVICT_UNROLL
    for (std::int32_t k = 0; k < moving::deep; ++k) {
      std::int32_t const x = rank + k * moving::threads, m = x / wide;
      move[k] = std::min(m, count - 1), offset[k] = part.map.unit_offset(part.first + x - m * wide, size);
    }
    KVEVICT_UNROLL
    for (std::int32_t k = 0; k < moving::deep; ++k)
      held[k] = *reinterpret_cast<Unit const*>(part.rows(row.source(i + move[k])) + offset[k]);
    if (mode == compaction::fill_holes)  // while the units arrive
      for (std::int32_t m = rank; m < count; m += moving::threads) holes[m] = row.destination(i + m);
    t.sync_block();
    KVEVICT_UNROLL
    for (std::int32_t k = 0; k < moving::deep; ++k)
      to[k] = part.rows(mode == compaction::stable ? row.destination(i + move[k]) : holes[move[k]]) + offset[k];
    KVEVICT_UNROLL
    for (std::int32_t k = 0; k < moving::deep; ++k)
      if (rank + k * moving::threads < count * wide) *reinterpret_cast<Unit*>(to[k]) = held[k];
    t.sync_block();  // before the next step's units are written, and its holes
  }
};

template <class Unit, class Entry>
void move_components(device& ctx, layer_view<Entry> const& v, move_rows_kernel<Unit, Entry> k, std::int64_t components,
                     std::int64_t row_bytes) {
  constexpr auto size = static_cast<std::int32_t>(sizeof(Unit));
  std::int64_t const rows = v.rows() * components,
                     wanted = std::max<std::int64_t>(1, moving::blocks / std::max<std::int64_t>(1, rows));
  std::int64_t const narrow = std::max<std::int64_t>(1, row_bytes / moving::slice_bytes),
                     widest = moving::threads * moving::deep;
  k.units = static_cast<std::int32_t>(row_bytes / size);
  k.slices = static_cast<std::uint32_t>(
      std::max<std::int64_t>(k.mode == compaction::stable ? std::min(wanted, narrow) : 1, blocks_for(k.units, widest)));
  k.units_a_slice = static_cast<std::int32_t>(blocks_for(k.units, k.slices));
  k.slices = blocks_for(k.units, k.units_a_slice);  // none is empty
  std::uint32_t const most = blocks_for(k.stride, widest / k.units_a_slice);
  k.abreast = k.mode == compaction::stable ? 1 : std::clamp(most, 1u, static_cast<std::uint32_t>(wanted));
  ctx.launch({static_cast<std::uint32_t>(rows) * k.slices * k.abreast}, {moving::threads}, 0, k);
}

/// Reads and writes moves × row bytes of every component that owns its bytes, in one launch for all whose rows are
/// equally long and aligned.
/// `moves` (B·H): how many each row has; `lengths` (B·H) become the keep set's counts.
template <class Entry>
void move_rows(device& ctx, layer_view<Entry> const& v, keep_arrays const& keep, std::int32_t const* moves,
               std::int32_t* lengths, compaction mode) {
  std::uint32_t left = 0;  // a bit per component
  for (std::int32_t i = 0; i < v.component_count; ++i) left |= v.begin()[i].alias_of < 0 ? 1u << i : 0u;
  for (std::int32_t first = 0; left != 0; ++first) {
    if ((left >> first & 1) == 0) continue;
    component const& c = v.begin()[first];
    with_unit(v, c, [&](auto unit) {
      move_rows_kernel<decltype(unit), Entry> k{ctx.watch(),
                                                v,
                                                {},
                                                keep.tokens,
                                                keep.counts,
                                                moves,
                                                std::exchange(lengths, nullptr),
                                                keep.stride,
                                                mode,
                                                static_cast<std::uint32_t>(v.rows())};
      std::size_t count = 0;
      for (std::int32_t i = first; i < v.component_count; ++i) {
        component const& other = v.begin()[i];
        if ((left >> i & 1) == 0 || unit_bytes(v, other) != unit_bytes(v, c) ||
            other.rows.row_bytes() != c.rows.row_bytes())
          continue;
        k.which[count++] = static_cast<std::uint8_t>(i), left &= ~(1u << i);
      }
      move_components(ctx, v, k, static_cast<std::int64_t>(count), c.rows.row_bytes());
    });
  }
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
