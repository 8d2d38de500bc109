// SPDX-License-Identifier: Apache-2.0
// Plans that keep whole pages, against all sets of pages, and what they refuse.
#include "support/whole_pages.hpp"

namespace policy_pages_test {

using namespace support;

TEST_CASE("select::pages keeps the best of all sets of pages, by row, by shared budgets and in one set for all") {
  for (std::uint64_t seed = 1; seed <= 1200; ++seed) {
    kvevict::host ctx;
    std::deque<std::vector<std::byte>> memory;
    whole_pages::check_all_sets(
        seed, [&](auto const& x) { return together::keep_bytes(memory, x); },
        [&](auto const& policy, auto const& view, kvevict::budget const& b) {
          whole_pages::answer out;
          out.refused = refusal([&] { plan(ctx, policy, kvevict::contents(view), b, out.keep); });
          return out;
        });
  }
}

TEST_CASE("what select::pages cannot keep is refused, and caches of whole pages name it") {
  whole_pages::refusals([](auto const& policy, auto const& view, kvevict::budget const& b, std::string const& what) {
    kvevict::host ctx;
    std::string const said = refusal([&] { plan(ctx, policy, kvevict::contents(view), b); });
    CAPTURE(what, said);
    CHECK((what.empty() ? said.empty() : contains(said, what)));
  });
}

}  // namespace policy_pages_test
