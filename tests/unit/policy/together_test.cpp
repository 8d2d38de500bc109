// SPDX-License-Identifier: Apache-2.0
// One set of tokens for all heads, and for all layers: the best by the mean, the largest or the sum of the rows'
// scores.
#include "support/together.hpp"

namespace policy_together_test {

using namespace support;

TEST_CASE("heads together and layers together keep the best of the reduced scores, as a naive reduction in double") {
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    kvevict::host ctx;
    std::deque<std::vector<std::byte>> memory;
    together::check(
        seed, [&](auto const& x) { return together::keep_bytes(memory, x); },
        [&](auto const& policy, auto const& view, kvevict::budget const& b) {
          return plan(ctx, policy, kvevict::contents(view), b);
        });
  }
}

TEST_CASE("rows that cannot keep one set are refused by plan, and a policy that a cache cannot follow") {
  together::refusals([](auto const& policy, auto const& view, kvevict::budget const& b, std::string const& what) {
    kvevict::host ctx;
    kvevict::keep_set out;
    std::string const said = refusal([&] { plan(ctx, policy, kvevict::contents(view), b, out); });
    INFO(said);
    CHECK((what.empty() ? said.empty() : said.find(what) != std::string::npos));
    CHECK(out.refused == !what.empty());
  });
}

}  // namespace policy_together_test
