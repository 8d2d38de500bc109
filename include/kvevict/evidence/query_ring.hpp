// SPDX-License-Identifier: Apache-2.0
// Puts a step's queries into a ring of the last ones.
#pragma once

#include <cstring>

#include <kvevict/core/evidence_messages.hpp>
#include <kvevict/core/query_ring.hpp>
#include <kvevict/evidence/validate.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace contract {

/// What needs no look at the arrays, and every context checks.
inline void expect_ring(query_ring const& ring, query_rows const& q, std::int32_t sequences) {
  KVEVICT_EXPECTS(sequences >= 0 && ring.window >= 1 && ring.window < 1 << 20, "push: a ring of ", ring.window,
                  " rows for ", sequences,
                  " sequences; give a window of at least one row, and counts that are not negative");
  if (sequences == 0) return;
  KVEVICT_EXPECTS(ring.data != nullptr && ring.positions != nullptr && ring.begin != nullptr && ring.count != nullptr,
                  "push: the ring has no memory; give data (B,2·W,Hq,D), positions (B,2·W), begin and count (B), the "
                  "latter two zeroed");
  KVEVICT_EXPECTS(q.heads == ring.heads && q.head_dim == ring.head_dim && q.type == ring.type && is_floating(q.type) &&
                      q.heads > 0 && q.head_dim > 0,
                  "push: queries of ", q.heads, " heads of ", q.head_dim, " ", name_of(q.type), " for a ring of ",
                  ring.heads, " heads of ", ring.head_dim, " ", name_of(ring.type),
                  "; give the ring the type and the heads of the queries");
  expect_aligned("push", "queries", q.data, q.type), expect_aligned("push", "rows of the ring", ring.data, ring.type);
  if (q.row_begin == nullptr && q.row_count == nullptr) messages::no_data();
  check_places(q.places(), q.seq_stride, q.layer_stride, q.sequences == 0 ? 1 : sequences / q.sequences, sequences);
}

}  // namespace contract
namespace kernels {

void has_kernel(push_queries_tag, host&);

inline void kernel(push_queries_tag, host&, query_ring const& ring, query_rows const& q, std::int32_t sequences) {
  std::int64_t const last = sequences == 0 ? -1 : contract::check_offsets(q.places(), sequences);
  contract::check_strides("queries", last, q.heads, q.token_stride, q.head_stride, q.head_dim);
  if (!q.has_data() && last >= 0) messages::no_data();
  for (std::int32_t b = 0; b < sequences; ++b) {
    if (q.rows(b) != 0 && q.positions == nullptr) messages::no_positions();
    for (std::int32_t i = 0; i < q.rows(b); ++i)
      if (q.places().position(b, i) < (i == 0 ? 0 : q.places().position(b, i - 1) + 1)) messages::ring_positions(b);
    if (q.rows(b) != 0 && q.seq_stride != 0 &&
        !contract::ends_in_sequence(q.first_row(b) + q.rows(b) - 1, q.heads, q.token_stride, q.head_stride,
                                    q.seq_stride))
      messages::rows_behind(b, q.first_row(b), q.rows(b));
    if (ring.count[b] < 0 || ring.count[b] > ring.window || ring.begin[b] < 0 || ring.begin[b] >= ring.window)
      messages::no_ring(b, ring.begin[b], ring.count[b]);
  }
  std::int64_t const size = size_of(q.type), row = ring.row_elements() * size;
  for (std::int32_t b = 0; b < sequences; ++b) {
    if (q.rows(b) == 0) continue;
    ring_step const s = ring_step::of(ring, b, q.rows(b), q.places().position(b, 0));
    for (std::int32_t i = 0; i < s.take; ++i)
      for (std::int32_t const at : {(s.next + i) % ring.window, (s.next + i) % ring.window + ring.window}) {
        std::int64_t const place = std::int64_t{b} * 2 * ring.window + at;
        ring.positions[place] = q.places().position(b, s.skip + i);
        auto const* const from = q.data_of(b) + (q.first_row(b) + s.skip + i) * q.token_stride * size;
        for (std::int32_t h = 0; h < q.heads; ++h)
          std::memcpy(static_cast<std::byte*>(ring.data) + place * row + h * q.head_dim * size,
                      from + h * q.head_stride * size, static_cast<std::size_t>(q.head_dim * size));
      }
    ring.begin[b] = s.begin, ring.count[b] = s.count;
  }
}

}  // namespace kernels

/// Takes a step's, a chunk's or a prompt's queries into the ring: of each sequence its newest rows, any number, none
/// included. Rows that the ring holds at the first new position or behind it are dropped: drafts that were rejected, or
/// another request's, where the first row is at position 0.
///
/// Shapes   queries of B sequences with positions → the ring.
/// Cost     W rows a sequence at most, written twice. On a device one launch.
/// Errors   contract_violation, nothing written: a ring without memory or of another shape or type; rows without
///          positions, or whose positions do not ascend. On a device the latter are raised by ctx.wait().
template <class Context> void push(Context& ctx, query_ring const& ring, query_rows const& q, std::int32_t sequences) {
  contract::expect_ring(ring, q, sequences);
  kernels::push_queries(ctx, ring, q, sequences);
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
