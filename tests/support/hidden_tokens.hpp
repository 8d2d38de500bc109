// SPDX-License-Identifier: Apache-2.0
// Rows that share a budget and see unequal parts of their past, for every context: the budget goes to what is seen.
#pragma once

#include <kvevict/kvevict.hpp>

#include "support/batch.hpp"
#include "support/together.hpp"
#include "support/whole_pages.hpp"

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

/// A row of heads or layers whose positions have a gap sees 20 tokens of either window below, the other row 50 and 20.
inline together::model gapped(std::int32_t layers, std::int32_t heads) {
  together::model m;
  m.L = layers, m.H = heads;
  for (std::int32_t r = 0; r < layers * heads; ++r) {
    m.lengths.push_back(60);
    for (std::int32_t j = 0; j < m.room; ++j) m.positions.push_back(r == 0 && j < 40 ? j : 100 + j);
  }
  return m;
}

/// Heads that share a table, and layers that have one length, keep equally many, whatever each of them sees.
template <class Put, class Plan> void check_counts(Put put, Plan plan) {
  auto const policy = kvevict::presets::random({.recent = 1});
  auto const sizes = [&](char const* name, auto const& of, kvevict::layer_view<> const& view,
                         kvevict::visibility const& sees, std::int32_t want) {
    auto const keep = plan(of, view, sees, kvevict::budget{.tokens_per_head = 40, .layer_count = view.pages.layers});
    CAPTURE(name, sees.window);
    for (std::int64_t r = 0; r < keep.rows(); ++r) CHECK(keep.row(r).size == want);
  };
  auto heads = gapped(1, 2), layers = gapped(2, 1), both = gapped(2, 2);
  heads.table_per_head = both.table_per_head = false;
  auto const one_length = layers.view(put).with_capability({.equal_layers = true});
  for (std::int32_t const window : {50, 20}) {
    kvevict::visibility const sees{.window = window};
    sizes("heads", policy, heads.view(put), sees, std::min(40, window));
    sizes("layers", policy, one_length, sees, std::min(40, window));
    sizes("heads and layers", policy, both.view(put).with_capability({.equal_layers = true}), sees,
          std::min(40, window));
  }
  std::vector<std::int32_t> const padding{0, 30};
  kvevict::visibility padded;
  padded.first_token = put(padding);
  sizes("padding", policy, one_length, padded, 40);
  auto const entropy = policy.with(kvevict::layers::entropy{});
  auto const keep = plan(entropy, both.view(put), kvevict::visibility{.window = 50},
                         kvevict::budget{.tokens_per_head = 40, .layer_count = 2});
  for (std::int32_t l = 0; l < 2; ++l) CHECK(keep(l, 0).size == keep(l, 1).size);
  sizes("entropy of one layer", entropy, heads.view(put), {.window = 20}, 20);  // no more than is seen
}

/// Sinks that a padded row has lost are in no page.
template <class Put, class Plan> void check_lost_sinks(Put put, Plan plan) {
  constexpr std::int32_t P = 4, N = 24;
  whole_pages::model m;
  m.P = P, m.columns = N / P, m.pool = N / P, m.lengths = {N}, m.table = {3, 0, 5, 1, 4, 2};
  std::vector<std::int32_t> positions(N);
  for (std::int32_t j = 0; j < N; ++j)
    positions[static_cast<std::size_t>(m.table[static_cast<std::size_t>(j / P)] * P + j % P)] = 100 + j;
  auto view = m.view(put);
  kvevict::component carried = view.components[0];
  carried.what = kvevict::role::position, carried.type = kvevict::dtype::i32;
  carried.rows.base = reinterpret_cast<std::byte*>(put(positions));
  std::vector<std::int32_t> const padding{6};
  kvevict::visibility sees{.window = 8, .sinks = 2};
  sees.first_token = put(padding);
  auto const policy = kvevict::presets::random({.recent = 1}).with(kvevict::select::pages{});
  auto const keep = plan(policy, view.with(carried), sees, kvevict::budget{.tokens_per_head = 16});
  auto const row = keep.row(0);
  CHECK(std::vector<std::int32_t>(row.begin(), row.end()) == std::vector<std::int32_t>{16, 17, 18, 19, 20, 21, 22, 23});
}

}  // namespace support::hidden_tokens
