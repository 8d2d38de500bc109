// SPDX-License-Identifier: Apache-2.0
// Rows to select from, made of random scores, and the selection that std::sort gives for them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include <kvevict/core/score_rows.hpp>

#include "support/random.hpp"

namespace reference {

/// Owns what a score_rows points to. Protected tokens hold NaN: nothing may look at them.
struct selection_input {
  std::vector<kvevict::row> rows;
  std::vector<std::int64_t> begin{0};
  std::vector<float> values;
  std::vector<std::int32_t> positions;
  std::int32_t sequences = 0, heads = 0;
  bool scattered = false;

  kvevict::score_rows view() {
    return {rows.data(), sequences, heads, begin.data(), values.data(), scattered ? positions.data() : nullptr, 0};
  }
};

struct selection_shape {
  std::int32_t sequences = 2, heads = 3;
  std::size_t most_tokens = 300;
  bool scattered = false;
  std::size_t levels = 0;          // > 0: that many different scores, so that ties abound; 0: continuous
  bool gaps_in_positions = false;  // scattered only: positions are not 0 … N−1
};

inline float any_score(generator& random, std::size_t levels) {
  float const x = static_cast<float>(
      levels > 0 ? static_cast<double>(random.below(levels)) - static_cast<double>(levels / 2) : random.normal());
  return x == 0 && random.below(2) == 0 ? -0.0f : x;
}

inline void add_row(selection_input& in, generator& random, selection_shape const& shape, std::int32_t b,
                    std::int32_t h) {
  auto const n = static_cast<std::int32_t>(random.below(shape.most_tokens + 1));
  std::vector<std::int32_t> at(static_cast<std::size_t>(n));
  std::int32_t last = 0;
  for (std::int32_t j = 0; j < n; ++j) {
    at[static_cast<std::size_t>(j)] = last;
    last += shape.gaps_in_positions ? 1 + static_cast<std::int32_t>(random.below(5)) : 1;
  }
  if (shape.scattered)
    for (std::size_t j = at.size(); j > 1; --j) std::swap(at[j - 1], at[random.below(j)]);
  kvevict::row r{b, h, n, 0, last, 0, 0, random.below(8) != 0};
  r.first = static_cast<std::int32_t>(random.below(static_cast<std::size_t>(last) + 1)) / 4;
  r.last = r.first + static_cast<std::int32_t>(random.below(static_cast<std::size_t>(last - r.first) + 1));
  for (std::int32_t const p : at) {
    bool const in_range = p >= r.first && p < r.last;
    r.candidates += in_range;
    in.values.push_back(in_range ? any_score(random, shape.levels) : std::numeric_limits<float>::quiet_NaN());
    in.positions.push_back(p);
  }
  r.budget = r.protected_tokens() + static_cast<std::int32_t>(random.below(static_cast<std::size_t>(r.candidates) + 1));
  in.rows.push_back(r);
  in.begin.push_back(in.begin.back() + n);
}

inline selection_input random_selection(generator& random, selection_shape const& shape) {
  selection_input in;
  in.sequences = shape.sequences, in.heads = shape.heads, in.scattered = shape.scattered;
  for (std::int32_t b = 0; b < shape.sequences; ++b)
    for (std::int32_t h = 0; h < shape.heads; ++h) add_row(in, random, shape, b, h);
  return in;
}

struct candidate {
  float score;
  std::int32_t position, head, token;
};

/// The total order: score descending (−0 = +0), position descending, head ascending; then the later token.
inline bool better(candidate const& a, candidate const& b) {
  if (a.score != b.score) return a.score > b.score;
  if (a.position != b.position) return a.position > b.position;
  return a.head != b.head ? a.head < b.head : a.token > b.token;
}

inline std::vector<candidate> ranked_candidates(kvevict::score_rows const& s, std::int64_t r, float weight = 1) {
  std::vector<candidate> out;
  for (std::int32_t j = 0; j < s.rows[r].tokens; ++j)
    if (s.evictable(r, j)) out.push_back({s.values[s.begin[r] + j] * weight, s.order(r, j), s.rows[r].head, j});
  std::sort(out.begin(), out.end(), better);
  return out;
}

/// What select_best must give for row r.
inline std::vector<std::int32_t> best_of_row(kvevict::score_rows const& s, std::int64_t r) {
  std::vector<std::int32_t> out;
  kvevict::row const& it = s.rows[r];
  for (std::int32_t j = 0; j < it.tokens; ++j)
    if (!it.active || !s.evictable(r, j)) out.push_back(j);
  if (it.active) {
    auto const best = ranked_candidates(s, r);
    for (std::int32_t i = 0; i < it.quota(); ++i) out.push_back(best[static_cast<std::size_t>(i)].token);
  }
  std::sort(out.begin(), out.end());
  return out;
}

/// What count_best must give.
inline std::vector<std::int32_t> best_of_heads(kvevict::score_rows const& s, std::int32_t b, std::int64_t count,
                                               std::int32_t forced, float const* weights) {
  std::vector<std::int32_t> out(static_cast<std::size_t>(s.heads), 0);
  std::vector<candidate> rest;
  for (std::int32_t h = 0; h < s.heads; ++h) {
    std::int64_t const r = std::int64_t{b} * s.heads + h;
    if (!s.rows[r].active) continue;
    auto const row = ranked_candidates(s, r, weights == nullptr ? 1.0f : weights[h]);
    auto const first = std::min(row.size(), static_cast<std::size_t>(forced));
    out[static_cast<std::size_t>(h)] = static_cast<std::int32_t>(first);
    count -= static_cast<std::int64_t>(first);
    rest.insert(rest.end(), row.begin() + static_cast<std::ptrdiff_t>(first), row.end());
  }
  std::sort(rest.begin(), rest.end(), better);
  for (std::int64_t i = 0; i < count; ++i) ++out[static_cast<std::size_t>(rest[static_cast<std::size_t>(i)].head)];
  return out;
}

}  // namespace reference
