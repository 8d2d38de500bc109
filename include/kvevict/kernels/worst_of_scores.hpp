// SPDX-License-Identifier: Apache-2.0
// The token that goes where one does, as while decoding at a fixed budget.
#pragma once

#include <algorithm>
#include <cstdint>

#include <kvevict/core/order_key.hpp>
#include <kvevict/core/score_rows.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {
namespace select {

/// The evictable token of the least score; of several the one at the smallest position, then the first. In an ascending
/// row all of [from, to) are evictable.
inline std::int32_t worst_ascending(float const* x, std::int32_t from, std::int32_t to) {
  std::uint32_t least = ~std::uint32_t{0};
  for (std::int32_t j = from; j < to; ++j) least = std::min(least, order_key(x[j]));
  while (order_key(x[from]) != least) ++from;
  return from;
}
inline std::int32_t worst_scattered(row const& it, float const* x, std::int32_t const* positions) {
  // of 64 slots at once without branches: positions are in no order
  std::int32_t const first = it.first, last = it.last, n = it.tokens;
  std::uint32_t least = ~std::uint32_t{0};
  std::int32_t from = 0, to = 0;  // it lies between them
  for (std::int32_t begin = 0; begin < n; begin += 64) {
    std::int32_t const end = std::min(begin + 64, n);
    std::uint32_t here = ~std::uint32_t{0};
    for (std::int32_t j = begin; j < end; ++j) {
      std::uint32_t const stays = std::uint32_t{positions[j] < first} | std::uint32_t{positions[j] >= last};
      here = std::min(here, order_key(x[j]) | (0u - stays));
    }
    if (here < least) least = here, from = begin;
    if (here == least) to = end;
  }
  std::int32_t found = -1;
  for (std::int32_t j = from; j < to; ++j)
    if (positions[j] >= first && positions[j] < last && order_key(x[j]) == least &&
        (found < 0 || positions[j] < positions[found]))
      found = j;
  return found;
}

}  // namespace select
}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
