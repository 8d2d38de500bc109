// SPDX-License-Identifier: Apache-2.0
// Layers that arrive one by one: budgets so far, and what is kept in the end.
#include <kvevict/kvevict.hpp>
#include <kvevict/layers/arriving.hpp>

#include "support/stack_scores.hpp"

namespace policy_arriving_test {

using namespace support;

namespace {

/// Tokens of each row, (L·H), and the scores that they have.
struct rows_of_layers {
  std::int32_t heads = 1;
  std::vector<std::vector<float>> scores;

  /// One threshold over the first `layers`, and away with the rest.
  void evict(std::int32_t layers, std::int32_t budget) {
    together::model m;
    m.L = layers, m.H = heads;
    std::vector<float> all;
    for (std::size_t r = 0; r < static_cast<std::size_t>(layers * heads); ++r) {
      m.lengths.push_back(int32(scores[r].size()));
      all.insert(all.end(), scores[r].begin(), scores[r].end());
      all.resize((r + 1) * 64);
    }
    std::deque<std::vector<std::byte>> memory;
    kvevict::host ctx;
    auto const policy = kvevict::policy{stack_scores::given{all.data(), m.room}, kvevict::protect{.recent = 1}}.with(
        kvevict::heads::over_layers{0});
    auto const keep =
        plan(ctx, policy, kvevict::contents(m.view([&](auto const& x) { return together::keep_bytes(memory, x); })),
             {.tokens_per_head = budget, .layer_count = layers});
    for (std::size_t r = 0; r < m.lengths.size(); ++r) {
      std::vector<float> kept;
      for (std::int32_t const j : keep.row(static_cast<std::int64_t>(r)))
        kept.push_back(scores[r][static_cast<std::size_t>(j)]);
      scores[r] = kept;
    }
  }
};

}  // namespace

TEST_CASE("a threshold over layers that arrive one by one keeps in the end what one over all of them keeps") {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    reference::generator random(seed);
    std::int32_t const L = 2 + int32(random.below(5)), budget = 6 + int32(random.below(30));
    rows_of_layers at_once;
    at_once.heads = 1 + int32(random.below(4));
    for (std::int32_t r = 0; r < L * at_once.heads; ++r) {
      at_once.scores.emplace_back();
      for (std::size_t j = 0, n = random.below(64); j < n; ++j)
        at_once.scores.back().push_back(static_cast<float>(random.uniform(0, 1)) +
                                        (seed % 2 == 0 ? 0.0f : static_cast<float>(L - r / at_once.heads)));
    }
    rows_of_layers arriving = at_once;
    at_once.evict(L, budget);
    for (std::int32_t m = 1; m <= L; ++m) {
      std::int32_t const now = kvevict::layers::budget_so_far(budget, m, L);
      arriving.evict(m, now);
      std::int64_t sum = 0;
      for (std::int32_t r = 0; r < m * at_once.heads; ++r)
        sum += static_cast<std::int64_t>(arriving.scores[static_cast<std::size_t>(r)].size());
      CHECK(sum < std::int64_t{at_once.heads} * (std::int64_t{L} * budget + m));
    }
    CAPTURE(seed, L, at_once.heads, budget);
    CHECK(arriving.scores == at_once.scores);
  }
}

TEST_CASE("the budget of the layers so far ends at no_cap") {
  constexpr std::int32_t no_cap = kvevict::budget::no_cap;
  CHECK(kvevict::layers::budget_so_far(no_cap, 1, 32) == no_cap);
  CHECK(kvevict::layers::budget_so_far(1 << 27, 1, 32) == no_cap);
  CHECK(kvevict::layers::budget_so_far(1 << 27, 32, 32) == 1 << 27);
}

TEST_CASE("budgets of the layers so far follow their weights, exactly") {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    reference::generator random(seed);
    std::int32_t const L = 1 + int32(random.below(8)), fixed = int32(random.below(6)),
                       budget = fixed + int32(random.below(40));
    std::vector<std::int64_t> weights, integers(static_cast<std::size_t>(3 * L));
    std::vector<std::int32_t> caps, budgets(static_cast<std::size_t>(L));
    for (std::int32_t m = 1; m <= L; ++m) {
      weights.push_back(static_cast<std::int64_t>(random.below(3) == 0 ? 0 : random.below(5000)));
      caps.push_back(fixed + int32(random.below(120)));
      kvevict::layers::budgets_so_far(weights.data(), caps.data(), m, L, budget, fixed, integers.data(),
                                      budgets.data());
      std::int64_t const sum = std::accumulate(weights.begin(), weights.end(), std::int64_t{0});
      std::int64_t room = 0;
      reference::counts limits;
      for (std::int32_t const n : caps) limits.push_back(static_cast<std::size_t>(n - fixed)), room += n - fixed;
      std::int64_t const total = std::min(room, std::int64_t{L} * (budget - fixed));
      std::vector<std::int64_t> numerators;
      for (std::int64_t const w : weights) numerators.push_back(total * (sum == 0 ? 1 : w));
      auto const want = stack_scores::settled(numerators, sum == 0 ? m : sum, total, limits);
      CAPTURE(seed, m, L, weights, caps, budget, fixed);
      for (std::size_t l = 0; l < want.size(); ++l) CHECK(budgets[l] == fixed + int32(want[l]));
    }
  }
  std::int64_t weight = 1, integers[3];
  std::int32_t cap = 10, out = 0;
  auto const said = [&](std::int32_t layers, std::int32_t budget, std::int32_t fixed) {
    return refusal([&] { kvevict::layers::budgets_so_far(&weight, &cap, layers, 1, budget, fixed, integers, &out); });
  };
  CHECK(said(2, 5, 1).find("2 layers of 1") != std::string::npos);
  CHECK(said(1, 5, 6).find("a budget of 5 for 6 protected tokens") != std::string::npos);
  CHECK(said(1, 20, 11).find("layer 0 holds 10 tokens") != std::string::npos);
  weight = -1;
  CHECK(said(1, 5, 1).find("layer 0 weighs -1") != std::string::npos);
}

}  // namespace policy_arriving_test
