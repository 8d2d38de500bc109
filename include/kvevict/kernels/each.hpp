// SPDX-License-Identifier: Apache-2.0
// Host kernels that call one function per token or per sequence, and the one that reads scores.
#pragma once

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <utility>
#include <vector>

#include <kvevict/core/fill.hpp>
#include <kvevict/core/score_rows.hpp>
#include <kvevict/kernels/kernel.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

void has_kernel(each_row_tag, host&);
void has_kernel(each_token_tag, host&);
void has_kernel(each_sequence_tag, host&);
void has_kernel(read_scores_tag, host&);
void has_kernel(few_rows_tag, host&);

/// f(row, token, score&) for all tokens of the active rows. No scratch.
template <class F> void kernel(each_token_tag, host& ctx, score_rows const& out, F const& f) {
  ctx.for_each(
      out.count(),
      [&](std::int64_t r, std::int32_t) {
        row const& in = out.rows[r];
        float* const x = out.values + out.begin[r];
        for (std::int64_t j = 0; in.active && j < in.tokens; ++j) f(in, j, x[j]);
      },
      4 * out.total_floats);
}

/// f(row, r) for the active rows, r = sequence·heads + head. No scratch.
template <class F> void kernel(each_row_tag, host& ctx, score_rows const& of, F const& f) {
  ctx.for_each(
      of.count(),
      [&](std::int64_t r, std::int32_t) {
        if (of.rows[r].active) f(std::as_const(of.rows[r]), r);
      },
      64 * of.count());
}

/// f(rows of the heads, sequence) for every sequence, one after the other. No scratch.
template <class F> void kernel(each_sequence_tag, host&, score_rows const& rows, F const& f) {
  for (std::int32_t b = 0; b < rows.sequences; ++b)
    f(slice<row>{rows.rows + std::int64_t{b} * rows.heads, rows.heads}, b);
}

/// f(some) of a few rows, then of the next ones: as many as have 4 MiB together, where a token has `bytes`, so that f
/// may read them twice, the second time from a cache. They are shown as heads of one sequence, whichever they belong
/// to: for kernels that look at each row by itself. No scratch.
template <class F> void kernel(few_rows_tag, host&, score_rows const& of, std::int64_t bytes, F const& f) {
  constexpr std::int64_t cached = std::int64_t{4} << 20;
  for (std::int64_t r = 0, end; r < of.count(); r = end) {
    score_rows some = of;
    std::int64_t held = some.most_tokens = 0;
    for (end = r; end < of.count() && (end == r || held + bytes * of.rows[end].tokens <= cached); ++end)
      held += bytes * of.rows[end].tokens,
          some.most_tokens = std::max<std::int64_t>(some.most_tokens, of.rows[end].tokens);
    if (end - r == of.count()) return f(of);
    some.rows += r, some.begin += r;
    some.sequences = 1, some.heads = static_cast<std::int32_t>(end - r);
    some.total_floats = some.begin[some.heads] - some.begin[0];
    f(some);
  }
}

/// Scores one by one, as a type of this unit: so std::vector's own functions for floats are not made here.
struct score_reader {
  struct value_type {
    float x;
    constexpr operator float() const { return x; }
  };
  using iterator_category = std::forward_iterator_tag;
  using difference_type = std::ptrdiff_t;
  using pointer = value_type const*;
  using reference = value_type;
  float const* at;

  value_type operator*() const { return {*at}; }
  score_reader& operator++() { return ++at, *this; }
  score_reader operator++(int) { return {at++}; }
  friend bool operator==(score_reader a, score_reader b) { return a.at == b.at; }
  friend bool operator!=(score_reader a, score_reader b) { return a.at != b.at; }
};

inline void kernel(read_scores_tag, host&, score_rows const& from, std::vector<float>& values) {
  values.assign(score_reader{from.values}, score_reader{from.values + from.begin[from.count()]});
  for (std::int64_t r = 0; r < from.count(); ++r)
    if (!from.rows[r].active) fill(values.data() + from.begin[r], values.data() + from.begin[r + 1], 0.0f);
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
