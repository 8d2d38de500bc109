// SPDX-License-Identifier: Apache-2.0
// Rows of scores that select::chunks works on, and what it must keep of them; for every context.
#pragma once

#include <string>
#include <vector>

#include <kvevict/core/score_rows.hpp>

#include "support/random.hpp"
#include "support/reference_chunks.hpp"

namespace support {

/// Rows of different lengths, intervals and budgets; scores of whole numbers, so that means are exact, ties are many.
struct chunk_case {
  std::vector<kvevict::row> rows;
  std::vector<std::int64_t> begin{0};
  std::vector<float> values;
  std::int32_t heads = 1, longest = 0;

  [[nodiscard]] std::int32_t sequences() const { return static_cast<std::int32_t>(rows.size()) / heads; }
  [[nodiscard]] kvevict::score_rows view() {
    kvevict::score_rows s{rows.data(), sequences(), heads, begin.data(), values.data(), nullptr};
    s.most_tokens = longest, s.total_floats = begin.back();
    return s;
  }
  /// Of row r, tokens that stay.
  [[nodiscard]] reference::index_row expected(std::size_t r, std::size_t size, std::size_t peak) const {
    kvevict::row const& it = rows[r];
    reference::index_row out;
    reference::row x;
    for (std::int32_t j = 0; j < it.tokens; ++j)
      if (j >= it.first && j < it.last) x.push_back(double{values[static_cast<std::size_t>(begin[r] + j)]});
    reference::index_row const kept = it.active
                                          ? reference::keep_chunks(x, static_cast<std::size_t>(it.quota()), size, peak)
                                          : reference::first_indices(x.size());
    for (std::int32_t j = 0; j < it.first; ++j) out.push_back(static_cast<std::size_t>(j));
    for (std::size_t const j : kept) out.push_back(static_cast<std::size_t>(it.first) + j);
    for (std::int32_t j = it.last; j < it.tokens; ++j) out.push_back(static_cast<std::size_t>(j));
    return out;
  }
};

/// Few or many different scores, multiples of what all sizes divide, or any. `room`: floats of a row, at least.
inline chunk_case random_chunks(std::uint64_t seed, std::int32_t room = 0) {
  reference::generator random(seed);
  auto const pick = [&](std::int32_t from, std::int32_t to) {
    return from + static_cast<std::int32_t>(random.below(static_cast<std::size_t>(to - from + 1)));
  };
  chunk_case out;
  out.heads = pick(1, 3);
  std::int32_t const kinds = seed % 3 == 0 ? 4 : seed % 3 == 1 ? 40 : 100000, negative = pick(0, 1) * kinds / 2;
  for (std::int32_t r = pick(1, 3) * out.heads; r > 0; --r) {
    std::int32_t const n = static_cast<std::int32_t>(out.rows.size()), tokens = pick(0, 90);
    kvevict::row it{n / out.heads, n % out.heads, tokens, 0, tokens, tokens, tokens, pick(0, 5) != 0};
    it.first = pick(0, std::min(tokens, 5)), it.last = pick(it.first, tokens);
    it.candidates = it.last - it.first;
    if (it.active) it.budget = it.protected_tokens() + pick(0, it.candidates);
    out.longest = std::max(out.longest, tokens);
    std::int64_t const at = out.begin.back();
    out.begin.push_back(at + std::max(tokens, room));
    out.values.resize(static_cast<std::size_t>(out.begin.back()), -3.0f);
    for (std::int32_t j = 0; j < tokens; ++j)
      out.values[static_cast<std::size_t>(at + j)] =
          static_cast<float>((pick(0, kinds) - negative) * (kinds > 1000 ? 1 : 27720));
    out.rows.push_back(it);
  }
  return out;
}

}  // namespace support
