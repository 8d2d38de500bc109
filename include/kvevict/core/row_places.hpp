// SPDX-License-Identifier: Apache-2.0
// Which rows of evidence belong to which sequence, and where they lie.
#pragma once

#include <cstdint>

#include <kvevict/core/abi.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// Of sequence b the rows [first_row(b), first_row(b) + rows(b)) of those at its offset, in order of position; none is
/// as good as any number. Three forms:
///
///   packed   row_begin (B + 1)                           rows [row_begin[b], row_begin[b+1])
///   apart    row_begin (B), row_count (B)                rows [row_begin[b], row_begin[b] + row_count[b])
///   padded   seq_stride, row_count (B), row_begin (B)    the same, counted from b·seq_stride on; row_begin is what
///            or null                                     lies on the left, null for none
///
/// A stack of L layers (b = l·S + s) has S entries in these arrays if `sequences` says S, else B.
struct row_places {
  std::int32_t const* row_begin = nullptr;
  std::int32_t const* row_count = nullptr;
  std::int32_t sequences = 0;               // S: of a layer, whose rows all layers count alike; 0: B
  std::int32_t const* positions = nullptr;  // of sequence s from s·position_stride on, counted like rows; or null
  std::int64_t position_stride = 0;

  constexpr std::int32_t sequence_of(std::int32_t b) const { return sequences == 0 ? b : b % sequences; }
  constexpr std::int32_t layer_of(std::int32_t b) const { return sequences == 0 ? 0 : b / sequences; }
  constexpr std::int32_t rows(std::int32_t b) const {
    std::int32_t const s = sequence_of(b);
    return row_count != nullptr ? row_count[s] : row_begin[s + 1] - row_begin[s];
  }
  constexpr bool descends(std::int32_t b) const {
    std::int32_t const s = sequence_of(b);
    return row_count == nullptr && row_begin[s] > row_begin[s + 1];
  }
  constexpr std::int64_t first_row(std::int32_t b) const {
    return row_begin == nullptr ? 0 : row_begin[sequence_of(b)];
  }
  /// Elements before sequence b's rows, by the strides from a sequence and from a layer to the next.
  constexpr std::int64_t offset(std::int32_t b, std::int64_t seq_stride, std::int64_t layer_stride) const {
    return sequence_of(b) * seq_stride + layer_of(b) * layer_stride;
  }
  /// Where positions of sequence b are counted from, or null.
  constexpr std::int32_t const* positions_of(std::int32_t b) const {
    return positions == nullptr ? nullptr : positions + sequence_of(b) * position_stride;
  }
  /// Of the sequence's i-th row.
  constexpr std::int32_t position(std::int32_t b, std::int32_t i) const { return positions_of(b)[first_row(b) + i]; }
};

}  // namespace KVEVICT_ABI
}  // namespace kvevict
