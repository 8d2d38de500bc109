// SPDX-License-Identifier: Apache-2.0
// Rows of pages on the host, and the tokens of those that stay.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>

#include <kvevict/core/shape.hpp>
#include <kvevict/kernels/pages.hpp>
#include <kvevict/kernels/select_best.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

void has_kernel(page_rows_tag, host&);
void has_kernel(select_pages_tag, host&);

inline score_rows kernel(page_rows_tag, host&, frame& scratch, score_rows const& tokens, std::int32_t page) {
  score_rows out = tokens;
  std::int64_t const n = tokens.count();
  auto* const begin = scratch.allocate<std::int64_t>(n + 1);
  auto* const rows = scratch.allocate<row>(n);
  begin[0] = 0;
  for (std::int64_t r = 0; r < n; ++r) {
    rows[r] = kvevict::pages::row_of(tokens.rows[r], page);
    begin[r + 1] = begin[r] + rows[r].tokens;
  }
  out.rows = rows, out.begin = begin, out.of_tokens = tokens.rows, out.page_size = page;
  out.total_floats = begin[n], out.most_tokens = tokens.most_tokens / page;
  out.values = scratch.allocate<float>(out.total_floats);
  return out;
}

/// Scratch of rows of pages, of at least two tokens each.
constexpr std::int64_t page_rows_bytes(cache_shape const& s) {
  std::int64_t const n = s.rows();
  return scratch_step((n + 1) * 8) + scratch_step(n * std::int64_t{sizeof(row)}) + scratch_step(n * (s.tokens / 2) * 4);
}

namespace select {

/// What row r keeps beside full pages.
inline std::int32_t rest_of(score_rows const& s, std::int64_t r) { return s.of_tokens[r].tokens % s.page_size; }

/// Full pages that row r keeps.
inline std::int32_t full_pages(score_rows const& s, std::int64_t r) {
  return s.rows[r].active ? s.rows[r].budget : s.rows[r].tokens;
}

/// `count` pages at the front of `out` become their tokens, from the last one on, each behind those that are still to
/// be read.
inline void spread(std::int32_t* out, std::int64_t count, std::int32_t page) {
  for (std::int64_t i = count - 1; i >= 0; --i) {
    std::int32_t const first = out[i] * page;
    std::iota(out + i * page, out + (i + 1) * page, first);
  }
}

}  // namespace select

/// The tokens of protected pages, of the quota() best others of each active row, and of the part-filled last one;
/// inactive rows keep all.
///
///   order   score descending (−0 = +0), newer page first
///
/// Shapes   rows of pages: scores (B·H, N/P) ragged → ascending slots (B·H, budget·P + N mod P) ragged.
/// Cost     select_best's of N/P tokens and a write of what stays.
/// Errors   as select_best, of pages.
inline void kernel(select_pages_tag, host& ctx, score_rows const& s, keep_set& out) {
  select::expect_rows("select_pages", s);
  auto const rows = static_cast<std::size_t>(s.count());
  out.sequences = s.sequences, out.heads = s.heads;
  out.lengths.resize(rows), out.row_begin.resize(rows + 1);
  out.row_begin[0] = 0;
  for (std::size_t i = 0; i < rows; ++i) {
    auto const r = static_cast<std::int64_t>(i);
    out.lengths[i] = s.of_tokens[r].tokens;
    out.row_begin[i + 1] =
        out.row_begin[i] + std::int64_t{select::full_pages(s, r)} * s.page_size + select::rest_of(s, r);
  }
  out.tokens.resize(static_cast<std::size_t>(out.row_begin[rows]));
  select::each_row(ctx, s, [&](std::int64_t r, std::uint32_t* keys, std::uint32_t* counts) {
    std::int32_t* const to = out.tokens.data() + out.row_begin[static_cast<std::size_t>(r)];
    std::int64_t const count = select::full_pages(s, r);
    select::row_of(s, r, keys, counts, {to, to + count});
    select::spread(to, count, s.page_size);
    std::int32_t* const rest = to + count * s.page_size;
    std::iota(rest, rest + select::rest_of(s, r), s.rows[r].tokens * s.page_size);
  });
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
