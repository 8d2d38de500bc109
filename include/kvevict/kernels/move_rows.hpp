// SPDX-License-Identifier: Apache-2.0
// Executes a move plan: the row of every moved token, in every component.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include <kvevict/cache/layer_view.hpp>
#include <kvevict/cache/move_interrupted.hpp>
#include <kvevict/cache/move_plan.hpp>
#include <kvevict/core/contract.hpp>
#include <kvevict/core/host.hpp>
#include <kvevict/core/messages.hpp>
#include <kvevict/kernels/kernel.hpp>
#include <kvevict/kernels/stream.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

void has_kernel(move_rows_tag, host&);

namespace moving {

inline constexpr std::int32_t block = 256;
inline constexpr std::int32_t rows_ahead = 8;  // that are fetched before they are copied
/// A call that writes more streams whole lines: caches would not hold them, and need not read what is overwritten.
inline constexpr std::int64_t cached_bytes = std::int64_t{16} << 20;

/// Some consecutive moves of one row: pages and slots, looked up once for all components that go by one table.
template <class Entry> struct stretch {
  Entry from_page[block], to_page[block];
  std::int32_t from_slot[block], to_slot[block];
  std::int32_t size;
  std::int64_t table;

  stretch(layer_view<Entry> const& v, move_plan const& plan, std::int64_t r, std::int64_t first, std::int64_t last,
          std::int64_t table_offset = 0)
      : size(static_cast<std::int32_t>(std::min<std::int64_t>(last - first, block))), table(table_offset) {
    auto const b = static_cast<std::int32_t>(r / v.heads()), h = static_cast<std::int32_t>(r % v.heads());
    std::int32_t const P = v.pages.page_size;
    std::int32_t const* const from = plan.sources.data() + first;
    std::int32_t const* const to = plan.destinations.data() + first;
    for (std::int32_t i = 0; i < size; ++i) {
      std::int32_t const from_index = from[i] / P, to_index = to[i] / P;
      from_page[i] = v.pages.entry(b, h, from_index, table), to_page[i] = v.pages.entry(b, h, to_index, table);
      from_slot[i] = from[i] - from_index * P, to_slot[i] = to[i] - to_index * P;
    }
  }
};

/// Run by run, so that transposed rows walk along their pages; moves of a run one after the other, while those of the
/// next run are fetched. Bytes 0: known at run time only.
template <std::int32_t Bytes>
void copy(row_map const& m, std::byte const* const* from, std::byte* const* to, std::int32_t n) {
  auto const bytes = static_cast<std::size_t>(Bytes > 0 ? Bytes : m.run_bytes);
  for (std::int64_t run = 0; run < m.n_runs; ++run) {
    std::int64_t const at = run * m.run_stride, next = run + 1 < m.n_runs ? at + m.run_stride : at;
    for (std::int32_t i = 0; i < n; ++i) {
      __builtin_prefetch(from[i] + next), __builtin_prefetch(to[i] + next, 1);
      std::memcpy(to[i] + at, from[i] + at, bytes);
    }
  }
}

/// Rows of one run of whole lines.
inline void copy_lines(row_map const& m, std::byte const* const* from, std::byte* const* to, std::int32_t n,
                       bool streams) {
  for (std::int32_t i = 0; i < n; ++i) {
    if (i + rows_ahead < n)
      for (std::int32_t b = 0; b < m.run_bytes; b += line_bytes) __builtin_prefetch(from[i + rows_ahead] + b, 0, 2);
    if (streams && reinterpret_cast<std::uintptr_t>(to[i]) % line_bytes == 0)
      stream(to[i], from[i], m.run_bytes);
    else
      std::memcpy(to[i], from[i], static_cast<std::size_t>(m.run_bytes));
  }
}

template <class Entry>
void move(row_map const& m, stretch<Entry> const& s, std::int64_t layer, std::int64_t head, bool streams) {
  std::byte const* from[block];
  std::byte* to[block];
  for (std::int32_t i = 0; i < s.size; ++i) {
    from[i] = m.page(s.from_page[i]) + m.row_offset(layer, head, s.from_slot[i]);
    to[i] = m.page(s.to_page[i]) + m.row_offset(layer, head, s.to_slot[i]);
  }
  if (m.n_runs == 1 && m.run_bytes % line_bytes == 0) return copy_lines(m, from, to, s.size, streams);
  switch (m.run_bytes) {
    case 1: return copy<1>(m, from, to, s.size);
    case 2: return copy<2>(m, from, to, s.size);
    case 4: return copy<4>(m, from, to, s.size);
    case 8: return copy<8>(m, from, to, s.size);
    case 16: return copy<16>(m, from, to, s.size);
    case 32: return copy<32>(m, from, to, s.size);
    case 64: return copy<64>(m, from, to, s.size);
    case 128: return copy<128>(m, from, to, s.size);
    default: return copy<0>(m, from, to, s.size);
  }
}

/// And as many tokens left: rows that lose only their last ones make no moves.
inline bool same_moves(move_plan const& plan, std::int64_t r, std::int64_t s) {
  auto const at = [&](std::int64_t row) { return plan.row_begin[static_cast<std::size_t>(row)]; };
  auto const equal = [&](std::vector<std::int32_t> const& v) {
    return std::equal(v.begin() + at(r), v.begin() + at(r + 1), v.begin() + at(s), v.begin() + at(s + 1));
  };
  return plan.lengths[static_cast<std::size_t>(r)] == plan.lengths[static_cast<std::size_t>(s)] &&
         equal(plan.sources) && equal(plan.destinations);
}

/// Rows that serve all heads of a sequence, or all layers, can only move when all agree.
template <class Entry> void expect_agreement(layer_view<Entry> const& v, move_plan const& plan) {
  component const *const of_heads = v.common_to_heads(), *const of_layers = v.common_to_layers();
  for (std::int64_t r = 0; r < v.rows() && (of_heads != nullptr || of_layers != nullptr); ++r) {
    auto const b = static_cast<std::int32_t>(r / v.heads()), h = static_cast<std::int32_t>(r % v.heads());
    if (of_heads != nullptr && !same_moves(plan, r, r - h))
      messages::heads_disagree("move_rows", "move", b, h, name_of(of_heads->what));
    if (of_layers != nullptr && !same_moves(plan, r, v.row_in_first_layer(b, h)))
      messages::layers_disagree("move_rows", "move", b, h, v.pages.layer_of(b));
  }
}

/// Bytes that a plan writes, rows common to heads or layers counted as if they were not.
template <class Entry> std::int64_t bytes_written(layer_view<Entry> const& v, move_plan const& plan) {
  std::int64_t of_token = 0;
  for (component const& c : v)
    if (c.alias_of < 0) of_token += c.rows.row_bytes();
  return plan.moves() * of_token;
}

/// The moves of heads [first, last) of sequence b: a block of each head's after the other, as heads of a token may be
/// neighbours in memory.
template <class Entry>
void move_heads(layer_view<Entry> const& v, move_plan const& plan, std::int32_t b, std::int32_t first,
                std::int32_t last, bool streams) {
  std::int64_t const layer = v.pages.layer_of(b);
  bool more = true;
  for (std::int64_t done = 0; more; done += block) {
    more = false;
    for (std::int32_t h = first; h < last; ++h) {
      std::int64_t const r = std::int64_t{b} * v.heads() + h;
      std::int64_t const from = plan.row_begin[static_cast<std::size_t>(r)] + done,
                         end = plan.row_begin[static_cast<std::size_t>(r) + 1];
      if (from >= end) continue;
      more = true;
      stretch<Entry> s(v, plan, r, from, end);
      for (component const& c : v) {
        if (c.alias_of >= 0 || !v.owns(c, b, h)) continue;
        if (c.table_offset != s.table) s = stretch<Entry>(v, plan, r, from, end, c.table_offset);
        move(c.rows, s, layer, h, streams);
      }
    }
  }
  if (streams) end_stream();
}

}  // namespace moving

/// The moves of every row, in plan order, in every component; aliases move with the rows that they are, rows common to
/// all heads or layers once.
///
/// Cost     reads and writes moves × row bytes; one worker for some heads of a sequence.
/// Errors   contract_violation if heads or layers that share a row disagree, and what the executor throws before it has
///          begun; nothing has moved then. move_interrupted where it gave up tasks that had begun. What it throws when
///          all rows have moved is dropped. The plan itself is checked by `apply`.
template <class Entry> void kernel(move_rows_tag, host& ctx, layer_view<Entry> const& v, move_plan const& plan) {
  moving::expect_agreement(v, plan);
  std::exception_ptr thrown;
  std::int64_t const sequences = v.heads() == 0 ? 0 : v.rows() / v.heads();
  std::int64_t const parts = std::clamp<std::int64_t>(
      sequences == 0 ? 1 : (ctx.concurrency() + sequences - 1) / sequences, 1, std::max(v.heads(), 1));
  bool const streams = can_stream && moving::bytes_written(v, plan) > moving::cached_bytes;
  auto const moved = ctx.try_each(
      sequences * parts,
      [&](std::int64_t i, std::int32_t) {
        std::int64_t const part = i % parts;
        moving::move_heads(v, plan, static_cast<std::int32_t>(i / parts),
                           static_cast<std::int32_t>(v.heads() * part / parts),
                           static_cast<std::int32_t>(v.heads() * (part + 1) / parts), streams);
      },
      plan.moves() * 16, thrown);
#if KVEVICT_EXCEPTIONS
  if (moved == host::progress::none) std::rethrow_exception(thrown);
  if (moved == host::progress::some) throw move_interrupted(thrown);
#else
  static_cast<void>(moved);
#endif
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
