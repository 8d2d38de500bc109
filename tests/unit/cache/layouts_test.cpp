// SPDX-License-Identifier: Apache-2.0
// The view reaches the addresses that the engines' own formulas give.
#include <limits>
#include <vector>

#include "support/layouts.hpp"

#include "support/catch.hpp"

namespace cache_layouts_test {

using layouts::layout;
using namespace kvevict;

namespace {

/// Byte offset in the pool of element d of token t of (b, h), as the engine computes it: page and slot given.
std::int64_t engine_offset(layout l, bool v, std::int64_t page, std::int64_t slot, std::int64_t h, std::int64_t d,
                           std::int64_t pages, std::int64_t P, std::int64_t H, std::int64_t D, std::int64_t E) {
  std::int64_t const x = 16 / E, k_or_v = v ? 1 : 0;
  switch (l) {
    case layout::nhd: return ((((k_or_v * pages + page) * P + slot) * H + h) * D + d) * E;
    case layout::hnd:
    case layout::csr: return ((((page * 2 + k_or_v) * H + h) * P + slot) * D + d) * E;
    case layout::x_packed:
      return v ? (pages * H * D * P + ((page * H + h) * D + d) * P + slot) * E
               : (((((page * H + h) * (D / x) + d / x) * P + slot) * x) + d % x) * E;
    case layout::token_pool: return (k_or_v * pages * H * D + (page * H + h) * D + d) * E;
    case layout::bnsh: return (k_or_v * pages * H * P * D + ((page * H + h) * P + slot) * D + d) * E;
    case layout::transposed_v:
      return v ? (pages * H * D + (h * D + d) * pages + page) * E : ((page * H + h) * D + d) * E;
    case layout::head_blocks:
      return v ? (pages * D * P + (page * D + d) * P + slot) * E
               : ((((page * (D / x) + d / x) * P + slot) * x) + d % x) * E;
    default: return (k_or_v * pages * P * D + (page * P + slot) * D + d) * E;
  }
}

}  // namespace

TEST_CASE("layouts: addresses are the engines'") {
  for (dtype const type : {dtype::f32, dtype::f16, dtype::bf16})
    for (std::int32_t const P : {1, 4, 16})
      for (layout const l : layouts::all) {
        if (l == layout::pointers) continue;
        layouts::cache<std::int32_t> c(l, {.lengths = {7, 0, 18}, .heads = 3, .page_size = P, .type = type});
        CAPTURE(c.name(), P, name_of(type));
        for (bool const v : {false, true}) {
          component const& k = *c.view.find(v ? role::v : role::k);
          std::int64_t const page_size = c.view.pages.page_size;
          c.for_each_slot([&](int b, int h, int t) {
            std::int64_t const page = c.view.pages.entry(b, h, t / page_size);
            for (int d = 0; d < 16; ++d) {
              auto const offset =
                  engine_offset(l, v, page, t % page_size, h, d, k.rows.page_count, page_size, 3, 16, size_of(type));
              REQUIRE(c.address(k, b, h, t, d) == c.buffer(0).data() + offset);
            }
          });
        }
      }
}

TEST_CASE("layouts: tag bits of a table's entries do not reach the addresses") {
  layouts::cache<std::int32_t> c(layout::nhd, {.lengths = {7, 18}, .heads = 2, .page_size = 4});
  component const& k = *c.view.find(role::k);
  std::vector<std::byte*> plain, tagged;
  c.for_each_slot([&](int b, int h, int t) { plain.push_back(c.view.row(k, b, h, t)); });
  for (auto& e : c.entries()) e |= std::numeric_limits<std::int32_t>::min();
  c.view.pages.index_mask = 0x7fffffff;
  c.for_each_slot([&](int b, int h, int t) { tagged.push_back(c.view.row(k, b, h, t)); });
  CHECK(plain == tagged);
}

TEST_CASE("layouts: what is filled in is read back, in every layout") {
  layouts::for_each_layout({.lengths = {9, 3}, .heads = 2, .state_floats = 3}, [](auto& c) {
    CAPTURE(c.name());
    auto const value = [](int b, int h, int t, int d) { return b * 1000 + h * 500 + t * 20 + d; };
    c.fill(value, [&](int b, int h, int t, int d) { return -value(b, h, t, d); });
    c.fill(role::state, [&](int b, int h, int t, int d) { return value(b, h, t, d) + 10000; });
    c.for_each_slot([&](int b, int h, int t) {
      for (int d = 0; d < 16; ++d) {
        REQUIRE(c.get(*c.view.find(role::k), b, h, t, d) == static_cast<float>(value(b, h, t, d)));
        REQUIRE(c.get(*c.view.find(role::v), b, h, t, d) == static_cast<float>(-value(b, h, t, d)));
      }
      REQUIRE(element<std::int32_t>(c.view, *c.view.find(role::position), b, h, t) == t);
      for (int d = 0; d < 3; ++d)
        REQUIRE(c.get(*c.view.find(role::state), b, h, t, d) == static_cast<float>(value(b, h, t, d) + 10000));
    });
  });
}

}  // namespace cache_layouts_test
