// SPDX-License-Identifier: Apache-2.0
// One set of tokens for all heads, and for all layers: the best by the mean, the largest or the sum of the rows'
// scores.
#include "support/together.hpp"
#include "support/stack.hpp"

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

TEST_CASE(
    "layers that differ at their beginning, in budget or in what is kept whole keep no one set, and not as many") {
  constexpr std::int32_t L = 2;
  stack of(random_batch(61, {.Hq = 2, .H = 2, .D = 4, .N = {40, 40}, .future = 0}), L, placed::own_tables, true);
  auto view = of.whole();
  kvevict::host ctx;
  std::vector<std::int32_t> const prefixes{4, 8}, padding{0, 10}, budgets{16, 20};
  std::vector<std::uint8_t> const whole{0, 1};
  kvevict::budget const ask{.tokens_per_head = 16, .layer_count = L};
  auto const apart = [&](auto const& policy, auto const& evidence, kvevict::budget const& b) {
    std::string const message = refusal([&] { (void)plan(ctx, policy, evidence, b); });
    INFO(message);
    CHECK(message.find("different budgets, read-only prefixes or padding") != std::string::npos);
  };
  auto const recent = kvevict::presets::random({.recent = 2}).with(kvevict::layers::together{});
  auto const half = recent.with(kvevict::protect{.recent_permille = 1000});
  apart(half, kvevict::contents(view.with_read_only(prefixes.data())), ask);
  apart(recent, kvevict::contents(view).with_visibility({.first_token = padding.data()}),
        {.tokens_per_head = 38, .layer_count = L});
  view.can.one_set_for_layers = true;
  apart(kvevict::presets::streaming_llm({.sinks = 0}), kvevict::contents(view.with_read_only(prefixes.data())), ask);
  std::vector<std::int32_t> const shares{10, 1, 1, 10};  // of each layer's heads
  std::string const message = refusal([&] {
    (void)plan(ctx, kvevict::presets::streaming_llm({}).with(kvevict::heads::table{shares.data(), L, 2}),
               kvevict::contents(view), ask);
  });
  CHECK(message.find("one set of tokens for all layers") != std::string::npos);

  view.can.one_set_for_layers = false, view.can.equal_layers = true;
  auto const alone = kvevict::presets::random({.recent = 2});
  apart(alone, kvevict::contents(view), {.layer_count = L, .per_sequence = budgets.data()});
  apart(alone, kvevict::contents(view), {.tokens_per_head = 16, .layer_count = L, .whole = whole.data()});
  CHECK_NOTHROW(plan(ctx, alone, kvevict::contents(view.with_read_only(prefixes.data())), ask));  // as many
  std::vector<kvevict::outcome> outcomes;
  kvevict::keep_set keep;
  float nan = __builtin_nanf("");
  std::memcpy(view.row(view.components[0], 1, 0, 7), &nan, 4);
  plan(ctx, kvevict::presets::knorm(), kvevict::contents(view), ask, keep, outcomes);
  for (std::int32_t l = 0; l < L; ++l) CHECK(keep(l, 0).size == 40);
}

}  // namespace policy_together_test
