// SPDX-License-Identifier: Apache-2.0
// Rows that share a budget and see unequal parts of their past, for every context: the budget goes to what is seen.
#pragma once

#include <kvevict/kvevict.hpp>

#include "support/batch.hpp"
#include "support/together.hpp"

namespace support::hidden_tokens {

/// A stack of ragged rows with gaps between positions, scores with ties, and a sliding window.
struct question {
  together::model m;
  std::vector<float> scores;
  std::int32_t window = 0, budget = 0;

  [[nodiscard]] bool is_protected(std::size_t r, std::int32_t j) const { return j < 1 || j >= m.lengths[r] - 2; }
  [[nodiscard]] bool is_seen(std::size_t r, std::int32_t j) const {
    auto const newest = m.positions[m.at(r, static_cast<std::size_t>(m.lengths[r] - 1))];
    return m.positions[m.at(r, static_cast<std::size_t>(j))] > newest - window;
  }
};

inline question random_question(std::uint64_t seed) {
  reference::generator random(seed);
  question q;
  q.m.L = 1 + int32(random.below(3)), q.m.S = 1 + int32(random.below(2)), q.m.H = 1 + int32(random.below(4));
  for (std::size_t r = 0; r < q.m.rows(); ++r) {
    q.m.lengths.push_back(int32(random.below(3) == 0 ? random.below(9) : random.below(65)));
    std::int32_t const step = 1 + int32(random.below(4));
    std::int32_t p = 0;
    for (std::int32_t j = 0; j < q.m.room; ++j)
      q.m.positions.push_back(p), p += 1 + int32(random.below(std::size_t(step)));
    for (std::int32_t j = 0; j < q.m.room; ++j) q.scores.push_back(static_cast<float>(random.below(9)) * 0.125f);
  }
  std::int32_t const windows[] = {5, 30, 100, 1000};
  q.window = windows[random.below(4)], q.budget = 4 + int32(random.below(40));
  return q;
}

/// `plan(policy, view, visibility, budget)`, for rows [first, first + rows) that share their budget.
inline void check_unit(question const& q, kvevict::keep_set const& keep, std::vector<std::size_t> const& rows) {
  std::int64_t held = 0, worth = 0, kept = 0;
  for (std::size_t const r : rows) {
    held += q.m.lengths[r], kept += keep.row(static_cast<std::int64_t>(r)).size;
    for (std::int32_t j = 0; j < q.m.lengths[r]; ++j) worth += q.is_protected(r, j) || q.is_seen(r, j);
  }
  auto const asked = std::int64_t{q.budget} * static_cast<std::int64_t>(rows.size());
  CAPTURE(rows, held, worth, asked);
  CHECK(kept == (held <= asked ? held : std::min(asked, worth)));
  if (held <= asked) return;
  for (std::size_t const r : rows)
    for (std::int32_t const j : keep.row(static_cast<std::int64_t>(r)))
      CHECK((q.is_protected(r, j) || q.is_seen(r, j)));
}

template <class Put, class Plan> void check(std::uint64_t seed, Put put, Plan plan) {
  namespace heads = kvevict::heads;
  question const q = random_question(seed);
  auto const view = q.m.view(put);
  std::vector<float> const other(q.scores.rbegin(), q.scores.rend());
  together::given const score{put(q.scores), q.m.room}, second{put(other), q.m.room};
  std::vector<std::int32_t> shares;
  for (std::int32_t i = 0; i < q.m.L * q.m.H; ++i) shares.push_back(1 + i * 5 % 7);
  std::vector<std::vector<std::size_t>> layers, stacks(static_cast<std::size_t>(q.m.S));
  for (std::size_t b = 0, H = static_cast<std::size_t>(q.m.H); b < static_cast<std::size_t>(q.m.L * q.m.S); ++b) {
    layers.emplace_back();
    for (std::size_t h = 0; h < H; ++h)
      layers.back().push_back(b * H + h), stacks[b % stacks.size()].push_back(b * H + h);
  }
  auto const look = [&](char const* name, auto const& policy, auto const& units) {
    kvevict::budget const ask{.tokens_per_head = q.budget, .layer_count = q.m.L};
    kvevict::keep_set const keep = plan(policy, view, kvevict::visibility{.window = q.window}, ask);
    CAPTURE(seed, name, q.window, q.m.lengths);
    for (auto const& rows : units) check_unit(q, keep, rows);
    if (q.window < 1000) return;
    CHECK(keep.tokens == plan(policy, view, kvevict::visibility{}, ask).tokens);  // all is seen
  };
  auto const p = kvevict::policy{score, kvevict::protect{.sinks = 1, .recent = 2}};
  for (std::int32_t const floor : {0, 200, 1000}) {
    look("adaptive", p.with(heads::adaptive{floor}), layers);
    look("forced floor", p.with(heads::forced_floor{floor}), layers);
    look("over layers", p.with(heads::over_layers{floor}), stacks);
  }
  look("table", p.with(heads::table{put(shares), q.m.L, q.m.H}), layers);
  using kvevict::score::share;
  auto const in_turn = [&](auto const& stage) {
    return p.with(kvevict::score::shares{share{600, score, stage}, share{400, second, stage}});
  };
  look("adaptive in each share", in_turn(heads::adaptive{}), layers);
  look("over layers in each share", in_turn(heads::over_layers{}), stacks);
}

}  // namespace support::hidden_tokens
