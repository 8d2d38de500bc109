// SPDX-License-Identifier: Apache-2.0
// The number of a rank is the one that a sort puts there.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include <kvevict/core/rank.hpp>

#include "support/catch.hpp"
#include "support/random.hpp"

namespace core_rank_test {

namespace {

constexpr std::int32_t lowest = std::numeric_limits<std::int32_t>::min(),
                       highest = std::numeric_limits<std::int32_t>::max();

void expect_sorted_numbers(std::vector<std::int32_t> const& x) {
  auto sorted = x;
  std::sort(sorted.begin(), sorted.end());
  auto const n = static_cast<std::int32_t>(x.size());
  for (std::int32_t k = 0; k < n; ++k) {
    CAPTURE(n, k);
    REQUIRE(kvevict::number_of_rank(x.data(), n, k) == sorted[static_cast<std::size_t>(k)]);
  }
}

}  // namespace

TEST_CASE("the number of a rank is the one that a sort puts there") {
  reference::generator random(7);
  CAPTURE(random.seed());
  for (int trial = 0; trial < 300; ++trial) {
    std::vector<std::int32_t> x(1 + random.below(40));
    std::int32_t const kind = trial % 5;
    for (std::size_t i = 0; i < x.size(); ++i) {
      auto const any = static_cast<std::int32_t>(static_cast<std::uint32_t>(random.bits()));
      x[i] = kind == 0   ? static_cast<std::int32_t>(i * 7 % x.size())       // a permutation, or a few numbers
             : kind == 1 ? any                                               // all of them
             : kind == 2 ? any % 3                                           // ties
             : kind == 3 ? (any % 2 != 0 ? lowest : highest)                 // both ends
                         : static_cast<std::int32_t>((1u << (i % 31)) - 1);  // far from even
    }
    CAPTURE(trial, kind);
    expect_sorted_numbers(x);
  }
}

TEST_CASE("the ends of all numbers have ranks, too") {
  expect_sorted_numbers({lowest});
  expect_sorted_numbers({highest, lowest});
  expect_sorted_numbers({highest, highest - 1, lowest, lowest + 1, 0, -1});
}

}  // namespace core_rank_test
