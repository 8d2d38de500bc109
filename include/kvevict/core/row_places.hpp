// SPDX-License-Identifier: Apache-2.0
// Which rows of evidence belong to which sequence, and where their positions lie.
#pragma once

#include <cstdint>

#include <kvevict/core/abi.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// Of sequence b the rows [first_row(b), first_row(b) + rows(b)), in order of position; none is as good as any number.
struct row_places {
  std::int32_t const* row_begin = nullptr;  // (B + 1)
  std::int32_t const* positions = nullptr;  // (T), or null

  constexpr std::int32_t rows(std::int32_t b) const { return row_begin[b + 1] - row_begin[b]; }
  constexpr std::int64_t first_row(std::int32_t b) const { return row_begin[b]; }
  /// Of the sequence's i-th row.
  constexpr std::int32_t position(std::int32_t b, std::int32_t i) const { return positions[first_row(b) + i]; }
};

}  // namespace KVEVICT_ABI
}  // namespace kvevict
