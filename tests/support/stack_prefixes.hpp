// SPDX-License-Identifier: Apache-2.0
// Layers whose read-only prefixes differ and that share a budget: of every row its own prefix is protected, for every
// context.
#pragma once

#include <kvevict/kvevict.hpp>

#include "support/catch.hpp"
#include "support/stack.hpp"
#include "support/together.hpp"

namespace support::stack_prefixes {

inline constexpr std::int32_t L = 3, N = 32, budget = 16, sinks = 2, recent = 1, permille = 500;
inline std::vector<std::int32_t> const read_only{12, 0, 4};  // of each layer

inline batch input() { return random_batch(91, {.Hq = 2, .H = 2, .D = 4, .N = {N, N, N}, .future = 0}); }

/// The middle is best, so that the ends stay only as protected ones.
inline std::vector<float> scores() {
  std::vector<float> out;
  for (std::int32_t i = 0; i < L * 2 * N; ++i) out.push_back(static_cast<float>(i % N < 20 ? i % N : 39 - i % N));
  return out;
}

/// `plan(policy)`: the keep set of a stack with those prefixes and scores.
template <class Plan> void check(float const* given_scores, Plan plan) {
  together::given const score{given_scores, N};
  auto const by_tokens = kvevict::policy{score, kvevict::protect{sinks, recent, permille}};
  auto const kept = [&](char const* name, auto const& policy, std::int32_t share) {
    kvevict::keep_set const keep = plan(policy);
    for (std::int32_t l = 0; l < L; ++l)
      for (std::int32_t h = 0; h < 2; ++h) {
        CAPTURE(name, l, h);
        auto const row = keep(l, h);
        std::int32_t const front = std::max(sinks, read_only[static_cast<std::size_t>(l)]),
                           back = std::max(recent, std::min(share, budget - front)),
                           rest = static_cast<std::int32_t>(row.size) - front - back;
        std::vector<std::int32_t> expected;
        REQUIRE(rest >= 0);
        for (std::int32_t j = front; j < N - back; ++j) expected.push_back(j);
        std::sort(expected.begin(), expected.end(), [&](std::int32_t a, std::int32_t b) {
          float const x = scores()[static_cast<std::size_t>(a)], y = scores()[static_cast<std::size_t>(b)];
          return x > y || (x == y && a > b);
        });
        expected.resize(static_cast<std::size_t>(rest));
        for (std::int32_t j = 0; j < N; ++j)
          if (j < front || j >= N - back) expected.push_back(j);
        std::sort(expected.begin(), expected.end());
        CHECK(std::vector<std::int32_t>(row.begin(), row.end()) == expected);
      }
  };
  constexpr std::int32_t share = budget * permille / 1000;
  auto const pyramid = by_tokens.with(kvevict::layers::pyramid{.beta = 4});
  kept("one threshold", by_tokens.with(kvevict::heads::over_layers{}), share);
  kept("pyramid", pyramid, share);
  kept("pyramid over heads", pyramid.with(kvevict::heads::adaptive{}), share);
}

/// A stack of ragged layers of one head with prefixes of their own. `plan(policy, stack, prefixes, budget)`.
template <class Plan> void check_sound(float const* given_scores, Plan plan) {
  auto const counts = [](kvevict::keep_set const& keep) {
    std::vector<std::int64_t> out;
    for (std::int64_t r = 0; r < keep.rows(); ++r) out.push_back(keep.row(r).size);
    return out;
  };
  auto const layers = [](std::vector<std::size_t> const& N) {
    return stack(random_batch(92, {.Hq = 1, .H = 1, .D = 4, .N = N, .future = 0}), int32(N.size()), placed::own_tables,
                 true);
  };
  using tokens = std::vector<std::int32_t>;
  together::given const score{given_scores, N};
  kvevict::protect const ends{.recent = 1, .recent_permille = 193};
  auto const one = kvevict::policy{score, ends}.with(kvevict::heads::over_layers{});
  {  // the longest prefix is all that its layer holds, and the longest row has none
    stack of = layers({21, 13, 32});
    auto const kept = counts(plan(one, of, {21, 4, 0}, tokens{26, 12, 25}, std::vector<std::uint8_t>{}));
    CHECK(kept[0] == 21);
    CHECK(kept[0] + kept[1] + kept[2] == 63);
  }
  auto const pyramid = kvevict::policy{score, ends}.with(kvevict::layers::pyramid{.beta = 4});
  stack two = layers({32, 32});
  auto const both = counts(plan(pyramid, two, {0, 0}, {16, 16}, std::vector<std::uint8_t>{}));
  CHECK(both[0] + both[1] == 32);
  for (tokens const& budgets : {tokens{16, 16}, tokens{16, 0}})
    for (tokens const& prefixes : {tokens{0, 0}, tokens{0, 24}})
      CHECK(counts(plan(pyramid, two, prefixes, budgets, std::vector<std::uint8_t>{0, 1})) ==
            std::vector<std::int64_t>{both[0], 32});
  CHECK(counts(plan(kvevict::presets::full(), two, {8, 8}, {0, 0}, std::vector<std::uint8_t>{})) ==
        std::vector<std::int64_t>{32, 32});
}

/// The layer whose prefix is beyond the budget is at fault alone; the others are as if it were given as whole.
/// `planned(policy, prefixes, whole)`: a keep set and outcomes of input(), 16 tokens a head.
template <class Plan> void check_outcomes(float const* given_scores, Plan planned) {
  using tokens = std::vector<std::int32_t>;
  auto const check = [&](char const* name, auto const& policy) {
    auto const [keep, outcomes] = planned(policy, tokens{0, 0, 24}, std::vector<std::uint8_t>{0, 0, 0});
    auto const [other, sound] = planned(policy, tokens{0, 0, 0}, std::vector<std::uint8_t>{0, 0, 1});
    REQUIRE(outcomes.size() == 3);
    for (std::size_t l = 0; l < 3; ++l) {
      CAPTURE(name, l, outcomes[l].message);
      CHECK(outcomes[l].sound() == (l < 2));
      CHECK(sound[l].sound());
    }
    CAPTURE(name);
    CHECK(keep.tokens == other.tokens);
    CHECK(keep.row_begin == other.row_begin);
    CHECK(keep.row(0).size + keep.row(1).size + keep.row(2).size + keep.row(3).size < 4 * N);
    CHECK((keep.row(4).size == N && keep.row(5).size == N));
  };
  auto const by_tokens = kvevict::policy{together::given{given_scores, N}, kvevict::protect{}};
  check("one threshold", by_tokens.with(kvevict::heads::over_layers{}));
  check("pyramid", by_tokens.with(kvevict::layers::pyramid{.beta = 4}));
  check("pyramid over heads", by_tokens.with(kvevict::layers::pyramid{.beta = 4}).with(kvevict::heads::adaptive{}));
  check("entropy", by_tokens.with(kvevict::layers::entropy{}).with(kvevict::heads::adaptive{}));
}

}  // namespace support::stack_prefixes
