// SPDX-License-Identifier: Apache-2.0
// Leverage of values that later queries look for, on a device.
#include "simt/scores_alike.hpp"
#include "support/later_case.hpp"

namespace value_capacity_test {

using namespace simt_test;

TEST_CASE("a device finds the value capacity that the host does, of queries and of given means") {
  for (known_rope const& rope : {small_ropes()[0], small_ropes()[3]}) {
    later_case c(731, rope, {.Hq = 4, .H = 2, .D = 24, .N = {70}, .future = 0});
    CAPTURE(rope.name, rope.width, rope.interleaved());
    auto const policy = presets::capkv({.sinks = 4, .recent = 3});
    scores_alike(c.cache, policy, [&](auto& on, auto const& view) {
      return prompt(view, on.rows(c.all.queries())).with_rope(rope.ours);
    });
    kept_moments const kept(c.moments(70, 4));
    scores_alike(c.cache, policy, [&](auto& on, auto const& view) {
      return contents(view).with_query_moments(kept.at(on.put(kept.mean), nullptr)).with_rope(rope.ours);
    });
  }
}

}  // namespace value_capacity_test
