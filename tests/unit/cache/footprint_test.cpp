// SPDX-License-Identifier: Apache-2.0
#include <kvevict/cache/footprint.hpp>

#include <set>

#include "support/catch.hpp"
#include "support/random.hpp"

namespace cache_footprint_test {

using namespace kvevict;

namespace {

/// Every byte by enumeration; the second is true when two rows share one.
std::pair<std::set<std::int64_t>, bool> bytes_of(footprint const& f) {
  std::pair<std::set<std::int64_t>, bool> out;
  std::vector<std::int64_t> starts{f.start};
  for (std::int32_t k = 0; k < f.count; ++k) {
    std::vector<std::int64_t> more;
    for (std::int64_t const s : starts)
      for (std::int64_t i = 0; i < f.dimensions[k].extent; ++i) more.push_back(s + i * f.dimensions[k].stride);
    starts = more;
  }
  for (std::int64_t const s : starts)
    for (std::int64_t i = 0; i < f.run; ++i) out.second |= !out.first.insert(s + i).second;
  return out;
}

/// Dimensions that nest, with gaps; strides are often the same for two footprints drawn with the same `unit`.
footprint random_nested(reference::generator& random, std::int64_t unit) {
  footprint f;
  f.start = static_cast<std::int64_t>(random.below(64));
  f.run = 1 + static_cast<std::int64_t>(random.below(static_cast<std::size_t>(unit)));
  std::int64_t step = unit;
  for (int k = 0; k < 3; ++k) {
    std::int64_t const extent = 1 + static_cast<std::int64_t>(random.below(4));
    f.add(extent, step);
    step *= 4 + static_cast<std::int64_t>(random.below(2) * random.below(3));
  }
  return f;
}

}  // namespace

TEST_CASE("footprint: overlap of nested strides is exact") {
  int apart = 0, together = 0;
  for (std::uint64_t seed = 0; seed < 6000; ++seed) {
    reference::generator random(seed);
    auto const a = random_nested(random, 4), b = random_nested(random, random.below(3) == 0 ? 6 : 4);
    REQUIRE(a.is_nested());
    auto const x = bytes_of(a), y = bytes_of(b);
    REQUIRE(!x.second);
    bool meet = false;
    for (std::int64_t const i : x.first) meet |= y.first.count(i) != 0;
    CAPTURE(seed);
    REQUIRE(overlap(a, b) == meet);
    REQUIRE(overlap(b, a) == meet);
    ++(meet ? together : apart);
  }
  CHECK(apart > 500);
  CHECK(together > 500);
}

TEST_CASE("footprint: nested means that no two rows share a byte") {
  for (std::uint64_t seed = 0; seed < 3000; ++seed) {
    reference::generator random(seed);
    footprint f;
    f.run = 1 + static_cast<std::int64_t>(random.below(8));
    for (int k = 0; k < 3; ++k)
      f.add(1 + static_cast<std::int64_t>(random.below(4)), static_cast<std::int64_t>(random.below(60)));
    CAPTURE(seed);
    if (f.is_nested()) REQUIRE(!bytes_of(f).second);
  }
}

TEST_CASE("footprint: the last byte, or that it cannot be told in 64 bits") {
  row_map m{nullptr, 5, 10, 1000, 100, 10, 2, 2, 4, 40000};
  CHECK(reach(m, 1, 10, 3, 4) == 5 + 9000 + 200 + 30 + 6 + 2);
  CHECK(reach(m, 3, 10, 3, 4) == 80000 + 5 + 9000 + 200 + 30 + 6 + 2);
  m.page_stride = std::int64_t{1} << 60;
  CHECK(reach(m, 1, 8, 3, 4) > 0);
  CHECK(reach(m, 1, 9, 3, 4) == -1);
  m.page_stride = 1000, m.slot_stride = std::numeric_limits<std::int64_t>::max();
  CHECK(reach(m, 1, 10, 3, 1) > 0);
  CHECK(reach(m, 1, 10, 3, 2) == -1);
}

}  // namespace cache_footprint_test
