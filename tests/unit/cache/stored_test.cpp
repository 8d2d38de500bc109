// SPDX-License-Identifier: Apache-2.0
#include <kvevict/cache/stored.hpp>

#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/keep_sets.hpp"

namespace cache_stored_test {

using namespace kvevict;
using reference::generator;

namespace {

using bytes = std::vector<std::byte>;

slice<std::byte const> all(bytes const& b) { return {b.data(), static_cast<std::int64_t>(b.size())}; }

keep_set some_keep() {
  keep_set k;
  k.sequences = 1, k.heads = 3;
  k.tokens = {1, 4, 0, 7}, k.row_begin = {0, 2, 2, 4}, k.lengths = {6, 7, 10};
  k.made_for = {0x1122334455667788u, 9};
  return k;
}
move_plan some_plan() {
  move_plan p;
  p.sequences = 1, p.heads = 3;
  p.sources = {3, 5, 9}, p.destinations = {1, 2, 0};
  p.row_begin = {0, 2, 2, 3};
  p.lengths_before = {6, 7, 10}, p.lengths = {3, 7, 1};
  p.order = row_order::scattered;
  p.made_for = {5, 0xfedcba9876543210u};
  return p;
}

bool same(fingerprint a, fingerprint b) { return a.epoch == b.epoch && a.table == b.table; }
bool same(keep_set const& a, keep_set const& b) {
  return a.sequences == b.sequences && a.heads == b.heads && a.tokens == b.tokens && a.row_begin == b.row_begin &&
         a.lengths == b.lengths && same(a.made_for, b.made_for) && a.refused == b.refused;
}
bool same(move_plan const& a, move_plan const& b) {
  return a.sequences == b.sequences && a.heads == b.heads && a.sources == b.sources &&
         a.destinations == b.destinations && a.row_begin == b.row_begin && a.lengths_before == b.lengths_before &&
         a.lengths == b.lengths && a.order == b.order && same(a.made_for, b.made_for) && a.refused == b.refused;
}

template <class T> bytes written(T const& x) {
  bytes out;
  write(x, out);
  return out;
}
/// Reads what the bytes are; the message of a refusal, or empty. What is read is written as it was, and no more memory
/// is taken than the bytes are worth.
std::string read(bytes const& b, bool plan) {
  auto const check = [&](auto const& x, std::int64_t used) {
    REQUIRE(written(x) == bytes(b.begin(), b.begin() + static_cast<std::ptrdiff_t>(used)));
  };
  return support::refusal([&] {
    std::int64_t used = 0;
    if (plan) {
      auto const p = read_move_plan(all(b), &used);
      check(p, used);
    } else {
      auto const k = read_keep_set(all(b), &used);
      check(k, used);
    }
  });
}

}  // namespace

TEST_CASE("stored: what was written is read back, one behind the other") {
  bytes out;
  keep_set no_keep;
  no_keep.row_begin = {0};
  move_plan no_plan;
  no_plan.row_begin = {0};
  write(some_keep(), out), write(no_plan, out), write(some_plan(), out), write(no_keep, out);
  std::int64_t at = 0, used = 0;
  auto const rest = [&] {
    at += used;
    return slice<std::byte const>{out.data() + at, static_cast<std::int64_t>(out.size()) - at};
  };
  CHECK(same(read_keep_set(rest(), &used), some_keep()));
  CHECK(same(read_move_plan(rest(), &used), no_plan));
  CHECK(same(read_move_plan(rest(), &used), some_plan()));
  CHECK(same(read_keep_set(rest(), &used), no_keep));
  CHECK(rest().size == 0);
}

TEST_CASE("stored: the bytes are those of version 2, least significant first") {
  auto const hex = [](bytes const& b) {
    std::string out;
    for (std::byte const x : b)
      for (unsigned const digit : {static_cast<unsigned>(x) >> 4, static_cast<unsigned>(x) & 15u})
        out += "0123456789abcdef"[digit];
    return out;
  };
  keep_set k;
  k.sequences = 1, k.heads = 1, k.tokens = {2, 259}, k.row_begin = {0, 2}, k.lengths = {300}, k.made_for = {1, 258};
  CHECK(hex(written(k)) ==
        "6b766b6565703032"  // kvkeep02
        "0100000001000000"
        "0200000000000000"
        "0000000000000000"
        "0100000000000000"
        "0201000000000000"
        "00000000000000000200000000000000"
        "2c010000"
        "0200000003010000");
  move_plan p;
  p.sequences = 1, p.heads = 1, p.sources = {4}, p.destinations = {3}, p.row_begin = {0, 1};
  p.lengths_before = {5}, p.lengths = {4}, p.order = row_order::scattered;
  CHECK(hex(written(p)) ==
        "6b76706c616e3032"  // kvplan02
        "0100000001000000"
        "0100000000000000"
        "0100000000000000"
        "0000000000000000"
        "0000000000000000"
        "00000000000000000100000000000000"
        "0500000004000000"
        "0400000003000000");
}

TEST_CASE("stored: damaged bytes are refused") {
  for (bool const plan : {false, true}) {
    bytes const good = plan ? written(some_plan()) : written(some_keep());
    CHECK(read(good, plan).empty());
    CHECK(support::contains(read(good, !plan), "as this version writes them"));
    for (std::size_t n = 0; n < good.size(); ++n)
      REQUIRE(!read({good.begin(), good.begin() + static_cast<std::ptrdiff_t>(n)}, plan).empty());
    auto const with = [&](std::size_t at, int value) {
      auto copy = good;
      copy[at] = static_cast<std::byte>(value);
      return read(copy, plan);
    };
    CHECK(support::contains(with(0, 0), "as this version writes them"));
    CHECK(support::contains(with(7, '1'), "as this version writes them"));    // another version
    CHECK(support::contains(with(11, 0xff), "as this version writes them"));  // sequences < 0
    CHECK(support::contains(with(23, 0x7f), "as this version writes them"));  // tokens beyond any memory
    CHECK(support::contains(with(24, 7), "as this version writes them"));     // an order that does not exist
    CHECK(support::contains(with(18, 200), "cut short"));
    CHECK(support::contains(with(56, 9), "do not ascend"));
  }
  CHECK(!support::refusal([] { read_keep_set({}); }).empty());
}

TEST_CASE("stored: random and mutated bytes are refused, or are written again as they were") {
  generator random(31);
  std::int64_t refused = 0, taken = 0;
  for (int i = 0; i < 3000; ++i) {
    bool const plan = i % 2 == 0;
    bytes b = plan ? written(some_plan()) : written(some_keep());
    if (i % 10 == 0) b.resize(random.below(200));
    for (std::size_t n = 1 + random.below(i % 10 == 0 ? 200 : 4); n > 0 && !b.empty(); --n) {
      std::size_t const at = random.below(b.size());
      b[at] = random.below(2) == 0 ? static_cast<std::byte>(random.bits()) : b[at] ^ std::byte{1};
    }
    if (i % 7 == 0) b.resize(random.below(b.size() + 20));
    if (i % 14 == 0) {  // the header is sound: what follows decides
      bytes const good = plan ? written(some_plan()) : written(some_keep());
      std::copy_n(good.begin(), std::min<std::size_t>(b.size(), 48), b.begin());
    }
    ++(read(b, plan).empty() ? taken : refused);
  }
  CHECK(refused > 500);
  CHECK(taken > 100);
}

TEST_CASE("stored: what announces more than there is takes no memory") {
  bytes b = written(some_keep());
  b[20] = std::byte{1};  // 2^32 tokens more
  std::int64_t const live = live_allocations(), before = allocations();
  CHECK(support::contains(support::refusal([&] { read_keep_set(all(b)); }), "cut short"));
  CHECK(allocations() - before < 20);  // of the message
  CHECK(live_allocations() == live);
}

TEST_CASE("stored: what describes nothing is not written") {
  bytes out(3);
  auto const refuses = [&](auto x, auto damage) {
    damage(x);
    CHECK(support::contains(support::refusal([&] { write(x, out); }), "; "));
    CHECK(out.size() == 3);
  };
  refuses(some_plan(), [](auto& p) { p.lengths.pop_back(); });
  refuses(some_plan(), [](auto& p) { p.row_begin[1] = 8; });
  refuses(some_plan(), [](auto& p) { p.refused = true; });
  refuses(some_keep(), [](auto& k) { k.lengths.pop_back(); });
  refuses(some_keep(), [](auto& k) { k.row_begin[1] = 8; });
  refuses(some_keep(), [](auto& k) { k.refused = true; });
}

TEST_CASE("stored: a write whose memory runs out has written nothing") {
  for (std::int64_t n = 0;; ++n) {
    bytes out(3, std::byte{7});
    failing_allocation const nth(n);
    try {
      write(some_keep(), out), write(some_plan(), out);
      break;
    } catch (std::bad_alloc const&) {
    }
    REQUIRE((out.size() == 3 || out.size() == 3 + written(some_keep()).size()));
  }
}

}  // namespace cache_stored_test
