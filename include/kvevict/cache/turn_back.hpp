// SPDX-License-Identifier: Apache-2.0
// A chunk of a row turned back by angles that the caller gives.
#pragma once

#include <cstdint>

#include <kvevict/cache/unrotated_reader.hpp>
#include <kvevict/core/multiply_add.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// Elements [first, first + row_chunk) of a token's row, of which every pair i is turned back by turns(i), whatever its
/// length is:
///
///   x(a) = x'(a)·cos + x'(b)·sin,   x(b) = x'(b)·cos − x'(a)·sin
///
/// `rows` has read(token, first, x) and rows(token, d), as row_reader has; first is a multiple of row_chunk.
template <class Rows, class Turns>
KVEVICT_HOST_DEVICE void turn_back(turning const& by, Rows const& rows, std::int64_t token, std::int32_t first,
                                   Turns const& turns, float (&x)[row_chunk]) {
  rows.read(token, first, x);
  if (first >= by.width) return;
  float partners[row_chunk];
  if (by.pairs == rope_pairs::neighbours)
    for (std::int32_t i = 0; i < row_chunk; ++i) partners[i] = x[i ^ 1];
  else if (by.count() % row_chunk == 0)
    rows.read(token, by.partner_of(first), partners);
  else
    for (std::int32_t i = 0; i < row_chunk; ++i) {  // chosen by comparison, so that on a device all stay in registers
      float const partner = first + i < by.width ? rows(token, by.partner_of(first + i)) : 0.0f;
      for (std::int32_t k = 0; k < row_chunk; ++k) partners[k] = k == i ? partner : i == 0 ? 0.0f : partners[k];
    }
  for (std::int32_t i = 0; i < row_chunk; ++i) {
    std::int32_t const d = first + i;
    if (d >= by.width) continue;
    turn const t = turns(by.pair_with(d));
    x[i] = multiply_add(x[i], t.cos, (by.is_first(d) ? partners[i] : -partners[i]) * t.sin);
  }
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
