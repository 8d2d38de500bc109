// SPDX-License-Identifier: Apache-2.0
// The last queries of each sequence, in memory that an engine gives: for window policies while decoding.
#pragma once

#include <cstdint>

#include <kvevict/core/queries.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// The last W query rows of each sequence and their positions. Every row is there twice, W rows apart, so that the rows
/// that count, at most W, lie side by side: no evidence needs a copy. `push` writes it, begin and count zeroed mean
/// that it is empty. Of a stack, B = L·S.
///
/// Its rows carry no LSE: what the engine's softmax summed over may have been evicted since.
struct query_ring {
  void* data = nullptr;  // (B, 2·W, Hq, D)
  dtype type = dtype::f32;
  std::int32_t window = 0;                          // W
  std::int32_t heads = 0, head_dim = 0;             // Hq, D
  std::int32_t* positions = nullptr;                // (B, 2·W)
  std::int32_t *begin = nullptr, *count = nullptr;  // (B) the rows that count

  constexpr std::int64_t row_elements() const { return std::int64_t{heads} * head_dim; }
  /// Bytes of `data` and of the integers of one sequence: positions, begin and count.
  constexpr std::int64_t data_bytes() const { return 2 * window * row_elements() * size_of(type); }
  constexpr std::int64_t index_bytes() const { return (2 * std::int64_t{window} + 2) * 4; }

  /// As evidence: prompt(cache, ring.rows()), with the scale and softcap that the engine's softmax uses.
  constexpr query_rows rows() const {
    query_rows out;
    out.data = data, out.type = type, out.heads = heads, out.head_dim = head_dim;
    out.token_stride = row_elements(), out.head_stride = head_dim;
    out.row_begin = begin, out.row_count = count, out.seq_stride = 2 * window * row_elements();
    out.positions = positions, out.position_stride = 2 * std::int64_t{window}, out.most_rows = window;
    return out;
  }
};

/// What push() does to a sequence's ring: `take` of its new rows from row `skip` on go to places next, next + 1, … mod
/// W.
struct ring_step {
  std::int32_t skip, take, next, begin, count;

  /// Rows at the first new position or later are dropped: drafts that were rejected; all, where a sequence begins.
  static constexpr ring_step of(query_ring const& ring, std::int32_t b, std::int32_t rows, std::int32_t position) {
    std::int32_t const W = ring.window, begin = ring.begin[b];
    std::int32_t held = ring.count[b];
    while (held > 0 && ring.positions[std::int64_t{b} * 2 * W + begin + held - 1] >= position) --held;
    std::int32_t const take = rows < W ? rows : W, room = W - take, old = held < room ? held : room;
    std::int32_t const next = (begin + held) % W;
    return {rows - take, take, next, (next + W - old) % W, old + take};
  }
};

}  // namespace KVEVICT_ABI
}  // namespace kvevict
