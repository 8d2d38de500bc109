// SPDX-License-Identifier: Apache-2.0
// Stacks of layers with given scores, and what one threshold over all layers keeps of them, by sorting, for every
// context.
#pragma once

#include <deque>
#include <map>
#include <numeric>

#include <kvevict/heads/over_layers.hpp>

#include "support/batch.hpp"
#include "support/reference_budgets.hpp"
#include "support/together.hpp"

namespace support::stack_scores {

using together::given;
using together::keep_bytes;

/// A model with ragged rows, scores with many ties, budgets of its sequences; scattered rows have positions of their
/// own.
struct question {
  together::model m;
  std::vector<float> scores;
  std::vector<std::int32_t> budgets;  // (L·S)
  bool scattered = false;
  std::int32_t sinks = 2, recent = 3, floor_permille = 200;

  [[nodiscard]] kvevict::protect protects() const { return {.sinks = sinks, .recent = recent}; }
  [[nodiscard]] std::int32_t order(std::size_t r, std::size_t j) const {
    return scattered ? m.positions[m.at(r, j)] : int32(j);
  }
};

inline question random_question(std::uint64_t seed, std::int32_t most_layers = 5, std::int32_t most_heads = 4) {
  reference::generator random(seed);
  question q;
  q.m.L = 1 + int32(random.below(static_cast<std::size_t>(most_layers)));
  q.m.S = 1 + int32(random.below(3)), q.m.H = 1 + int32(random.below(static_cast<std::size_t>(most_heads)));
  q.scattered = seed % 3 == 0;
  bool const ragged = seed % 4 != 0;
  for (std::size_t r = 0; r < q.m.rows(); ++r) {
    q.m.lengths.push_back(int32(ragged ? random.below(65) : 50));
    std::vector<std::size_t> order = reference::first_indices(64);
    for (std::size_t i = 64; q.scattered && i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
    for (std::size_t const j : order) q.m.positions.push_back(int32(3 * j));
  }
  std::size_t const levels = seed % 2 == 0 ? 5 : 1 << 20;  // few values, so that ties decide, too
  for (std::size_t i = 0; i < q.m.at(q.m.rows(), 0); ++i)
    q.scores.push_back(static_cast<float>(random.below(levels)) * 0x1p-20f - 0x1p-22f);
  for (std::int32_t i = 0; i < q.m.L * q.m.S; ++i)
    q.budgets.push_back(seed % 5 == 0 || i == 0 ? 6 + int32(random.below(40)) : q.budgets[0]);
  std::int32_t const floors[] = {0, 200, 333, 1000};
  q.floor_permille = floors[random.below(4)];
  return q;
}

struct token {
  float score;
  std::int32_t position;
  std::size_t member, row, index;
};

/// Shares by largest remainder; what a part cannot hold goes to the others one by one, in the same order, round after
/// round.
inline reference::counts settled(std::vector<std::int64_t> const& numerators, std::int64_t denominator,
                                 std::int64_t total, reference::counts const& limits) {
  reference::counts const endless(limits.size(), std::size_t{1} << 40);
  auto out = reference::largest_remainder(numerators, denominator, static_cast<std::size_t>(total), endless);
  reference::index_row order = reference::first_indices(out.size());
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return numerators[a] % denominator > numerators[b] % denominator;
  });
  std::size_t left = 0;
  for (std::size_t i = 0; i < out.size(); ++i)
    if (out[i] > limits[i]) left += out[i] - limits[i], out[i] = limits[i];
  while (left > 0)
    for (std::size_t const i : order)
      if (left > 0 && out[i] < limits[i]) ++out[i], --left;
  return out;
}

/// The kept tokens of every row (L·S·H): all tokens of a sequence in one sorted list.
inline std::vector<std::vector<std::int32_t>> expected(question const& q) {
  auto const S = static_cast<std::size_t>(q.m.S), H = static_cast<std::size_t>(q.m.H),
             L = static_cast<std::size_t>(q.m.L);
  std::vector<std::vector<std::int32_t>> out(q.m.rows());
  for (std::size_t s = 0; s < S; ++s) {
    std::int64_t held = 0, asked = 0;
    std::vector<std::size_t> rows;
    for (std::size_t l = 0; l < L; ++l) {
      asked += std::int64_t{q.budgets[l * S + s]} * q.m.H;
      for (std::size_t h = 0; h < H; ++h) rows.push_back((l * S + s) * H + h), held += q.m.lengths[rows.back()];
    }
    std::vector<token> all;
    reference::counts limits, f(rows.size(), 0);
    std::vector<std::set<std::size_t>> stay(rows.size());
    for (std::size_t i = 0; i < rows.size(); ++i) {
      auto const n = static_cast<std::size_t>(q.m.lengths[rows[i]]);
      std::vector<std::size_t> by_age = reference::first_indices(n);
      std::sort(by_age.begin(), by_age.end(),
                [&](auto a, auto b) { return q.order(rows[i], a) < q.order(rows[i], b); });
      limits.push_back(0);
      for (std::size_t k = 0; k < n; ++k) {
        std::size_t const j = by_age[k];
        if (held <= asked || k < static_cast<std::size_t>(q.sinks) || k + static_cast<std::size_t>(q.recent) >= n) {
          stay[i].insert(j);
          continue;
        }
        all.push_back({q.scores[q.m.at(rows[i], j)], q.order(rows[i], j), i, rows[i], j}), ++limits.back();
      }
    }
    std::sort(all.begin(), all.end(), [](token const& a, token const& b) {
      return a.score != b.score         ? a.score > b.score
             : a.position != b.position ? a.position > b.position
                                        : a.member < b.member;
    });
    if (held > asked) {
      std::int64_t pooled = asked;
      for (auto const& p : stay) pooled -= static_cast<std::int64_t>(p.size());
      for (std::size_t k = 0; k < static_cast<std::size_t>(pooled); ++k) ++f[all[k].member];
      std::vector<std::int64_t> numerators;
      auto const n = static_cast<std::int64_t>(rows.size());
      for (std::size_t const count : f)
        numerators.push_back((1000 - q.floor_permille) * n * static_cast<std::int64_t>(count) +
                             q.floor_permille * pooled);
      auto left = settled(numerators, 1000 * n, pooled, limits);
      for (token const& t : all)
        if (left[t.member] > 0) stay[t.member].insert(t.index), --left[t.member];
    }
    for (std::size_t i = 0; i < rows.size(); ++i)
      for (std::size_t const j : stay[i]) out[rows[i]].push_back(int32(j));
  }
  return out;
}

/// put(vector) → memory of the context; plan(policy, view, budget) → the host's keep set.
template <class Put, class Plan> void check(std::uint64_t seed, Put put, Plan plan) {
  question const q = random_question(seed);
  auto view = q.m.view(put);
  if (q.scattered) view = view.with_order(kvevict::row_order::scattered);
  kvevict::policy const policy =
      kvevict::policy{given{put(q.scores), q.m.room}, q.protects()}.with(kvevict::heads::over_layers{q.floor_permille});
  kvevict::budget const ask{.layer_count = q.m.L, .per_sequence = put(q.budgets)};
  kvevict::keep_set const keep = plan(policy, view, ask);
  auto const want = expected(q);
  CAPTURE(seed, q.m.L, q.m.S, q.m.H, q.m.lengths, q.budgets, q.floor_permille, q.scattered);
  for (std::size_t r = 0; r < want.size(); ++r) {
    CAPTURE(r);
    auto const row = keep.row(static_cast<std::int64_t>(r));
    CHECK(std::vector<std::int32_t>(row.begin(), row.end()) == want[r]);
  }
}

}  // namespace support::stack_scores
