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

namespace {

template <class Policy>
kvevict::keep_set planned(Policy const& policy, kvevict::layer_view<> const& view, kvevict::visibility const& sees,
                          kvevict::budget const& b) {
  kvevict::host ctx;
  return plan(ctx, policy, kvevict::contents(view).with_visibility(sees), b);
}

}  // namespace

TEST_CASE("heads that share a table keep equally many, layers of one length, too, whatever each of them sees") {
  std::deque<std::vector<std::byte>> memory;
  hidden_tokens::check_counts([&](auto const& x) { return together::keep_bytes(memory, x); },
                              [](auto const&... x) { return planned(x...); });
}

TEST_CASE("sinks that a padded row has lost are in no page that stays") {
  std::deque<std::vector<std::byte>> memory;
  hidden_tokens::check_lost_sinks([&](auto const& x) { return together::keep_bytes(memory, x); },
                                  [](auto const&... x) { return planned(x...); });
}

}  // namespace policy_hidden_tokens_test
