// SPDX-License-Identifier: Apache-2.0
#include <kvevict/kernels/pool.hpp>
#include <kvevict/threads.hpp>

#include <cmath>
#include <limits>
#include <vector>

#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"
#include "support/reference_scores.hpp"

namespace kernels_pool_test {

using namespace kvevict;

namespace {

struct pooled_rows {
  std::vector<row> rows;
  std::vector<std::int64_t> begin{0};
  std::vector<float> values;

  explicit pooled_rows(std::vector<std::int32_t> const& lengths, std::int32_t window) {
    reference::generator random(3);
    for (std::int32_t const n : lengths) {
      rows.push_back(
          {static_cast<std::int32_t>(rows.size()), 0, n, 0, std::max(0, n - window), std::max(0, n - window), 1, true});
      begin.push_back(begin.back() + n);
      for (float const x : random.normals<float>(static_cast<std::size_t>(n))) values.push_back(x);
    }
  }
  score_rows out() {
    return {rows.data(), static_cast<std::int32_t>(rows.size()), 1, begin.data(), values.data(), nullptr, 0};
  }
};

}  // namespace

TEST_CASE("pooling along the tokens before the window") {
  threads two(2);
  host ctx(two.as_executor(0));
  for (auto const kind : {pooling::max, pooling::average})
    for (std::int32_t const width : {1, 3, 5, 7, 33}) {
      pooled_rows x({0, 1, 2, 7, 15, 16, 17, 64, 333}, 4);
      auto const before = x.values;
      kernels::pool(ctx, pool_options{width, kind}, x.out());
      for (std::size_t r = 0; r < x.rows.size(); ++r) {
        auto const at = [&](std::int64_t j) { return static_cast<std::size_t>(x.begin[r] + j); };
        reference::row in;
        for (std::int32_t j = 0; j < x.rows[r].last; ++j) in.push_back(double{before[at(j)]});
        auto const want = reference::pooled(in, static_cast<std::size_t>(width),
                                            kind == pooling::max ? reference::pool::max : reference::pool::average);
        for (std::int32_t j = 0; j < x.rows[r].last; ++j)
          REQUIRE(x.values[at(j)] == Approx(want[static_cast<std::size_t>(j)]).epsilon(1e-5).margin(1e-6));
        for (std::int32_t j = x.rows[r].last; j < x.rows[r].tokens; ++j) REQUIRE(x.values[at(j)] == before[at(j)]);
      }
    }
}

TEST_CASE("a maximum never hides a score that is not finite") {
  host ctx;
  float const infinity = std::numeric_limits<float>::infinity();
  for (float const bad : {std::nanf(""), infinity, -infinity})
    for (auto const kind : {pooling::max, pooling::average}) {
      pooled_rows x({40}, 0);
      x.values[9] = bad;
      kernels::pool(ctx, pool_options{5, kind}, x.out());
      for (std::size_t j = 0; j < 40; ++j) CHECK(std::isnan(x.values[j]) == (j >= 7 && j <= 11));
    }
}

TEST_CASE("pooling refuses even widths and scattered rows") {
  host ctx;
  pooled_rows x({40}, 0);
  for (std::int32_t const width : {0, -3, 4})
    CHECK_THROWS_WITH(kernels::pool(ctx, pool_options{width, pooling::max}, x.out()), Catch::Contains("odd width"));
  std::vector<std::int32_t> const positions(40, 0);
  score_rows out = x.out();
  out.positions = positions.data();
  CHECK_THROWS_WITH(kernels::pool(ctx, pool_options{3, pooling::max}, out), Catch::Contains("compact them stably"));
  CHECK_NOTHROW(kernels::pool(ctx, pool_options{1, pooling::max}, out));
}

TEST_CASE("pooling skips inactive rows, allocates once and stays within its bound") {
  threads two(2);
  host ctx(two.as_executor(0));
  pooled_rows x({400, 30}, 0);
  x.rows[1].active = false;
  auto const before = x.values;
  kernels::pool(ctx, pool_options{7, pooling::max}, x.out());
  for (std::size_t j = 400; j < 430; ++j) CHECK(x.values[j] == before[j]);
  auto const count = allocations();
  kernels::pool(ctx, pool_options{7, pooling::max}, x.out());
  CHECK(allocations() == count);
  CHECK(static_cast<std::int64_t>(ctx.scratch().high_water()) <= kernels::pool_bytes(400, 7, 2));
}

}  // namespace kernels_pool_test
