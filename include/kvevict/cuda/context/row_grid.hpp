// SPDX-License-Identifier: Apache-2.0
// How the rows of a plan are cut into blocks and threads.
#pragma once

#include <algorithm>
#include <cstdint>

#include <kvevict/core/contract.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/cuda/shim/shim.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

inline std::int64_t stride_of(score_rows const& out) { return out.count() == 0 ? 0 : out.total_floats / out.count(); }
/// Rows in order are read four scores at a time.
inline void expect_vectors(score_rows const& s) {
  KVEVICT_EXPECTS(reinterpret_cast<std::uintptr_t>(s.values) % 16 == 0 && stride_of(s) % 4 == 0, "score_rows: rows of ",
                  stride_of(s),
                  " scores do not begin at multiples of 16 bytes; align them, and take room for whole vectors of 4");
}
/// A block for a row of that many tokens, `each` a thread: whole warps, at least two.
constexpr std::uint32_t threads_for(std::int64_t tokens, std::int64_t each) {
  std::int64_t const warps = (tokens + each * 32 - 1) / (each * 32);
  return static_cast<std::uint32_t>(std::min<std::int64_t>(std::max<std::int64_t>(warps, 2), 32) * 32);
}
constexpr std::uint32_t blocks_for(std::int64_t items, std::int64_t each) {
  return static_cast<std::uint32_t>((items + each - 1) / each);
}

/// The token that a thread of a (row, 256 tokens) grid stands for; −1 where there is none.
KVEVICT_DEVICE inline std::int64_t token_of(thread& t, score_rows const& rows, std::uint32_t chunks, std::int64_t& r) {
  r = t.block().x / chunks;
  std::int64_t const j = std::int64_t{t.block().x % chunks} * t.block_size().x + t.linear_index();
  return rows.rows[r].active && j < rows.rows[r].tokens ? j : -1;
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
