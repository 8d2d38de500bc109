// SPDX-License-Identifier: Apache-2.0
// Where rows share a budget and see unequal parts of their past, none of it is lost, and none goes to what nobody sees.
#include "support/hidden_tokens.hpp"

namespace policy_hidden_tokens_test {

using namespace support;

TEST_CASE("a budget that rows share goes to what they see, and all of it") {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    kvevict::host ctx;
    std::deque<std::vector<std::byte>> memory;
    hidden_tokens::check(
        seed, [&](auto const& x) { return together::keep_bytes(memory, x); },
        [&](auto const& policy, auto const& view, kvevict::visibility const& sees, kvevict::budget const& b) {
          return plan(ctx, policy, kvevict::contents(view).with_visibility(sees), b);
        });
  }
}

TEST_CASE("heads that share a table keep equally many, whatever each of them sees") {
  together::model m;
  m.H = 2, m.table_per_head = false, m.lengths = {60, 60};
  for (std::int32_t h = 0; h < 2; ++h)
    for (std::int32_t j = 0; j < m.room; ++j) m.positions.push_back(h == 0 && j < 40 ? j : 100 + j);
  std::deque<std::vector<std::byte>> memory;
  auto const view = m.view([&](auto const& x) { return together::keep_bytes(memory, x); });
  kvevict::host ctx;
  auto const policy = kvevict::presets::random({.recent = 1});
  for (std::int32_t const window : {50, 20}) {  // head 0 sees 20 tokens of either, head 1 sees 50 and 20
    kvevict::budget const ask{.tokens_per_head = 40};
    auto const keep = plan(ctx, policy, kvevict::contents(view).with_visibility({.window = window}), ask);
    CAPTURE(window);
    CHECK((keep(0, 0).size == std::min(40, window) && keep(0, 1).size == keep(0, 0).size));
  }
}

}  // namespace policy_hidden_tokens_test
