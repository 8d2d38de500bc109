// SPDX-License-Identifier: Apache-2.0
// relocate() for a cache in device memory whose table and ledger are the host's, as engines keep them.
#pragma once

#include <algorithm>
#include <cstdint>

#include <kvevict/apply/relocate.hpp>
#include <kvevict/cuda/context/call.hpp>
#include <kvevict/cuda/context/unit_bytes.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace cuda {

/// A move plan in device memory.
struct listed_moves {
  std::int32_t const *sources, *destinations;
  std::int64_t const* begin;  // (rows + 1)
};

/// A block goes over the moves of a row in batches: all read, barrier, all write, barrier. No destination lies before
/// its source in the same pages, and sources ascend, so a batch writes nothing that a later one reads.
///
/// Shapes   moves of (B·H) rows, a component (B·H, N, width) → the component. Grid: (row).
template <class Unit, class Entry> struct move_listed_kernel {
  static constexpr int max_threads = 256;
  static constexpr std::int32_t deep = 4;  // units that a thread has under way
  watched watch;
  layer_view<Entry> v;
  std::int32_t which;  // component
  listed_moves moves;
  std::int32_t units;  // of a row

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (watch.stopped(t)) return;
    std::int64_t const r = t.block().x;
    auto const b = static_cast<std::int32_t>(r / v.heads()), h = static_cast<std::int32_t>(r % v.heads());
    component const& c = v.begin()[which];
    if (!v.owns(c, b, h)) return;
    constexpr std::int32_t most = max_threads * deep;
    token_rows<Entry> const rows = v.rows_of(c, b, h);
    for (std::int32_t first = 0; first < units; first += most) {  // bytes of a row move by themselves
      std::int32_t const wide = std::min(most, units - first), batch = most / wide;
      for (std::int64_t i = moves.begin[r], end = moves.begin[r + 1]; i < end; i += batch)
        step(t, rows, c.rows, i, static_cast<std::int32_t>(std::min<std::int64_t>(batch, end - i)) * wide, first, wide);
    }
  }

 private:
  KVEVICT_DEVICE void step(thread& t, token_rows<Entry> const& rows, row_map const& map, std::int64_t i,
                           std::int32_t count, std::int32_t first, std::int32_t wide) const {
    Unit held[deep];
    auto const rank = static_cast<std::int32_t>(t.linear_index());
    auto const at = [&](std::int32_t const* slots, std::int32_t x) {
      return reinterpret_cast<Unit*>(rows(slots[i + x / wide]) +
                                     map.unit_offset(first + x % wide, static_cast<std::int32_t>(sizeof(Unit))));
    };
    KVEVICT_UNROLL
    for (std::int32_t k = 0; k < deep; ++k)
      if (std::int32_t const x = rank + k * max_threads; x < count) held[k] = *at(moves.sources, x);
    t.sync_block();
    KVEVICT_UNROLL
    for (std::int32_t k = 0; k < deep; ++k)
      if (std::int32_t const x = rank + k * max_threads; x < count) *at(moves.destinations, x) = held[k];
    t.sync_block();
  }
};

template <class T> T* uploaded(device& ctx, frame& scratch, T const* from, std::int64_t count) {
  T* const to = scratch.allocate<T>(count);
  copy_to_device(ctx.queue(), to, from, static_cast<std::size_t>(count) * sizeof(T));
  return to;
}

/// Moves of a view whose table lies in the host's memory, by a launch a component.
template <class Entry> void move_listed(device& ctx, layer_view<Entry> v, move_plan const& plan) {
  kernels::moving::expect_agreement(v, plan);
  if (plan.moves() == 0) return;
  device::call call(ctx, ctx.nameless(), v.sequences(), v.pages.layers);
  ctx.zero("status", ctx.watch().raised, sizeof(std::uint32_t));  // no kernel before ours does
  frame scratch(ctx.scratch());
  std::int64_t const table_rows = moves::table_rows(v.pages).count();
  v.pages.entries = uploaded(ctx, scratch, v.pages.entries, v.pages.row_begin[table_rows]);
  v.pages.row_begin = uploaded(ctx, scratch, v.pages.row_begin, table_rows + 1);
  listed_moves const list{uploaded(ctx, scratch, plan.sources.data(), plan.moves()),
                          uploaded(ctx, scratch, plan.destinations.data(), plan.moves()),
                          uploaded(ctx, scratch, plan.row_begin.data(), v.rows() + 1)};
  synchronize(ctx.queue());  // the host's arrays may go
  for (std::int32_t i = 0; i < v.component_count; ++i) {
    component const& c = v.begin()[i];
    if (c.alias_of >= 0) continue;
    with_unit(v, c, [&](auto unit) {
      constexpr auto size = static_cast<std::int32_t>(sizeof unit);
      ctx.launch({static_cast<std::uint32_t>(v.rows())}, {256}, 0,
                 move_listed_kernel<decltype(unit), Entry>{ctx.watch(), v, i, list,
                                                           static_cast<std::int32_t>(c.rows.row_bytes() / size)});
    });
  }
  call.done();
}

}  // namespace cuda

/// The host's relocate (apply/relocate.hpp) of a cache in device memory: what it checks, plans and asks the ledger for
/// is done at once, the moves are put into the stream.
///
///   auto const kept = keep.read(ctx);                     // waits for the plan
///   relocate(ctx, on_host, view, kept, ledger, done);     // `view`: table, lengths and prefixes in the host's memory
///
/// Pages that are given up are released when the moves are in the stream: who takes them writes behind those there.
///
/// Cost     the host's, copies of the table and the moves, a launch a component. Waits for the copies.
/// Errors   the host's; cuda_error before a row has moved, when nothing has changed and what was taken is given back.
template <class Entry, class Ledger>
void relocate(cuda::device& ctx, host& on_host, layer_view<Entry> const& view, keep_set const& keep, Ledger& ledger,
              relocated<Entry>& out) {
  ctx.expect_no_dry_run("relocate");
  moves::relocate_by(on_host, view, keep, ledger, out,
                     [&](layer_view<Entry> const& both, move_plan& plan) { cuda::move_listed(ctx, both, plan); });
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
