// SPDX-License-Identifier: Apache-2.0
// Puts a step's queries into a ring of the last ones, on a device.
#pragma once

#include <cstdint>

#include <kvevict/cuda/context/device.hpp>
#include <kvevict/evidence/query_ring.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

void has_kernel(kernels::push_queries_tag, device&);

/// A block for each sequence, threads over the elements of its rows.
///
/// Shapes   queries (T,Hq,D), positions (T) → ring (B, 2·W, Hq, D), positions (B, 2·W), begin, count (B).
struct push_queries_kernel {
  static constexpr int max_threads = 256;
  watched watch;
  query_ring ring;
  query_rows q;

  KVEVICT_DEVICE void operator()(thread& t) const {
    if (watch.stopped(t)) return;
    auto const b = static_cast<std::int32_t>(t.block().x);
    KVEVICT_SHARED(t, std::uint32_t, wrong, 1);
    if (t.linear_index() == 0) wrong[0] = is_wrong(t, b);
    t.sync_block();
    if (wrong[0] != 0) return;
    std::int32_t const rows = q.rows(b);
    if (rows == 0) return;
    ring_step const s = ring_step::of(ring, b, rows, q.places().position(b, 0));
    t.sync_block();  // all have read what is written now
    std::int64_t const wide = ring.row_elements();
    for (std::int64_t k = t.linear_index(); k < s.take * wide; k += t.block_size().x) {
      auto const i = static_cast<std::int32_t>(k / wide);
      std::int64_t const e = k % wide, at = std::int64_t{b} * 2 * ring.window + (s.next + i) % ring.window,
                         from = (q.first_row(b) + s.skip + i) * q.token_stride + e / ring.head_dim * q.head_stride +
                                e % ring.head_dim;
      if (size_of(q.type) == 4)
        copy<std::uint32_t>(b, from, at * wide + e);
      else
        copy<std::uint16_t>(b, from, at * wide + e);
      if (e == 0) ring.positions[at] = ring.positions[at + ring.window] = q.places().position(b, s.skip + i);
    }
    if (t.linear_index() == 0) ring.begin[b] = s.begin, ring.count[b] = s.count;
  }

 private:
  template <class T> KVEVICT_DEVICE void copy(std::int32_t b, std::int64_t from, std::int64_t to) const {
    T const x = reinterpret_cast<T const*>(q.data_of(b))[from];
    T* const all = static_cast<T*>(ring.data);
    all[to] = all[to + ring.window * ring.row_elements()] = x;
  }
  /// What the host checks of a sequence; it is noted.
  KVEVICT_DEVICE bool is_wrong(thread& t, std::int32_t b) const {
    row_places const in = q.places();
    std::int64_t const from = in.first_row(b);
    if (from < 0 || in.descends(b) || in.rows(b) < 0)
      return watch.refuse(t, in.row_count == nullptr ? fault::row_begin : fault::row_count, b, 0, from,
                          in.row_count == nullptr ? 0 : in.rows(b)),
             true;
    std::int32_t const rows = in.rows(b);
    if (rows != 0 && !q.has_data()) return watch.refuse(t, fault::no_data, b, 0), true;
    if (rows != 0 && q.positions == nullptr) return watch.refuse(t, fault::no_positions, b, 0), true;
    for (std::int32_t i = 0; i < rows; ++i)
      if (in.position(b, i) < (i == 0 ? 0 : in.position(b, i - 1) + 1))
        return watch.refuse(t, fault::ring_positions, b, 0), true;
    if (rows != 0 && !contract::ends_in_sequence(from + rows - 1, q.heads, q.token_stride, q.head_stride, q.seq_stride))
      return watch.refuse(t, fault::rows_behind, b, 0, from, rows), true;
    if (ring.count[b] < 0 || ring.count[b] > ring.window || ring.begin[b] < 0 || ring.begin[b] >= ring.window)
      return watch.refuse(t, fault::no_ring, b, 0, ring.begin[b], ring.count[b]), true;
    return false;
  }
};

/// A sequence at fault keeps its ring; the others' are written.
inline void kernel(kernels::push_queries_tag, device& ctx, query_ring const& ring, query_rows const& q,
                   std::int32_t sequences) {
  if (sequences == 0) return;
  contract::check_strides("queries", farthest_row, q.heads, q.token_stride, q.head_stride, q.head_dim);
  ctx.expect_sequences(sequences, 1);
  ctx.launch({static_cast<std::uint32_t>(sequences)}, {256}, 0, push_queries_kernel{ctx.watch(), ring, q});
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
