// SPDX-License-Identifier: Apache-2.0
// Re-rotation on the host; the bodies are in support/rerotation.hpp.
#include "support/rerotation.hpp"

#include "support/allocations.hpp"

namespace apply_rerotate_test {

using namespace kvevict;
namespace laws = support::rerotation;

namespace {

struct on_host {
  template <class Cache> std::string operator()(Cache& cache, rope const& by, std::int32_t first) const {
    host ctx;
    return support::refusal([&] { rerotate(ctx, cache.view, by, first); });
  }
};

}  // namespace

TEST_CASE("keys are turned to contiguous positions, to one rounding, and nothing else changes") {
  laws::closes_gaps(on_host{}, {std::begin(layouts::all), std::end(layouts::all)});
}
TEST_CASE("products with later queries depend on distances alone") { laws::keeps_relative_products(on_host{}); }
TEST_CASE("shared prefixes are never written") { laws::leaves_prefixes(on_host{}); }
TEST_CASE("rows in common are turned once, and of MLA the rotary part alone") {
  laws::turns_common_rows_once(on_host{});
}
TEST_CASE("stacks whose layers have their positions in common") { laws::turns_stacks(on_host{}); }
TEST_CASE("what cannot be turned is refused by name, and untouched") { laws::refuses(on_host{}); }

TEST_CASE("rows of other lengths than those that they have their positions in common with are refused") {
  support::known_rope const r = support::small_ropes()[0];
  layouts::cache_shape s = laws::shape_of(dtype::f32);
  s.head_lengths = {9, 9, 8, 8, 7, 6};
  layouts::with_layout(layouts::layout::bnsh, s, [&](auto& cache) {
    laws::fill(cache, r);
    for (component& c : cache.view.components)
      if (c.what == role::position) c.rows.head_stride = 0;
    cache.fill(role::position, [](int b, int, int t, int) { return laws::position_of(b, 0, t); });
    auto const bytes = cache.snapshot();
    CHECK(
        on_host{}(cache, r.ours, 0) ==
        "rerotate: sequence 2, head 1 has 6 tokens and the row that it has its positions in common with 7; give every "
        "row its own positions, or keep as many tokens in each");
    CHECK(cache.snapshot() == bytes);
  });
}

}  // namespace apply_rerotate_test
