// SPDX-License-Identifier: Apache-2.0
#include <kvevict/cache/move_plan_bytes.hpp>

#include "support/catch.hpp"
#include "support/keep_sets.hpp"

using namespace kvevict;

namespace {

move_plan some_plan() {
  move_plan p;
  p.sequences = 1, p.heads = 3;
  p.sources = {3, 5, 9}, p.destinations = {1, 2, 0};
  p.row_begin = {0, 2, 2, 3};
  p.lengths_before = {6, 7, 10}, p.lengths = {3, 7, 1};
  p.order = row_order::scattered;
  return p;
}

void expect_equal(move_plan const& a, move_plan const& b) {
  CHECK(a.sequences == b.sequences);
  CHECK(a.heads == b.heads);
  CHECK(a.sources == b.sources);
  CHECK(a.destinations == b.destinations);
  CHECK(a.row_begin == b.row_begin);
  CHECK(a.lengths_before == b.lengths_before);
  CHECK(a.lengths == b.lengths);
  CHECK(a.order == b.order);
}

std::string refused(std::vector<std::byte> const& bytes) {
  return support::refusal([&] { read_move_plan({bytes.data(), static_cast<std::int64_t>(bytes.size())}); });
}

}  // namespace

TEST_CASE("move_plan: written plans are read back, one behind the other") {
  std::vector<std::byte> bytes;
  move_plan empty;
  empty.row_begin = {0};
  write(some_plan(), bytes);
  auto const first = static_cast<std::int64_t>(bytes.size());
  write(empty, bytes);
  std::int64_t used = 0;
  expect_equal(read_move_plan({bytes.data(), static_cast<std::int64_t>(bytes.size())}, &used), some_plan());
  CHECK(used == first);
  expect_equal(read_move_plan({bytes.data() + first, static_cast<std::int64_t>(bytes.size()) - first}), empty);
}

TEST_CASE("move_plan: damaged bytes are refused") {
  std::vector<std::byte> bytes;
  write(some_plan(), bytes);
  for (std::size_t n = 0; n < bytes.size(); ++n)
    REQUIRE(!refused({bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(n)}).empty());
  auto const with = [&](std::size_t at, int value) {
    auto copy = bytes;
    copy[at] = static_cast<std::byte>(value);
    return refused(copy);
  };
  CHECK(support::contains(with(0, 0), "byte order"));
  CHECK(support::contains(with(11, 0xff), "byte order"));  // sequences < 0
  CHECK(support::contains(with(23, 0x7f), "byte order"));  // moves beyond any memory
  CHECK(support::contains(with(24, 7), "byte order"));     // an order that does not exist
  CHECK(support::contains(with(16, 200), "cut short"));
  CHECK(support::contains(with(40, 9), "ascend"));
  move_plan plan = some_plan();
  plan.lengths.pop_back();
  CHECK(!support::refusal([&] { write(plan, bytes); }).empty());
}
