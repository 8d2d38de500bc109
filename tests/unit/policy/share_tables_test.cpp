// SPDX-License-Identifier: Apache-2.0
// Budgets from fixed tables, and what a file of them may say.
#include <kvevict/kvevict.hpp>
#include <kvevict/layers/share_text.hpp>

#include "support/share_tables.hpp"

namespace policy_share_tables_test {

using namespace support;

TEST_CASE("budgets follow a table of layers and heads, exactly") {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    kvevict::host ctx;
    std::deque<std::vector<std::byte>> memory;
    share_tables::check(
        seed, [&](auto const& x) { return together::keep_bytes(memory, x); },
        [&](auto const& policy, auto const& view, kvevict::budget const& b) {
          auto keep = plan(ctx, policy, kvevict::contents(view), b);
          kvevict::cache_shape const shape{view.sequences(), view.heads(), view.heads(), 1, 64, 0, 0};
          CHECK(static_cast<std::int64_t>(ctx.scratch().high_water()) <= kvevict::workspace_bytes(ctx, policy, shape));
          return keep;
        });
  }
}

TEST_CASE("a file of shares is read: remarks, empty lines, blanks and line ends of others") {
  auto const t =
      kvevict::read_shares("# made by hand\r\n\r\nkvevict shares 1\r\n  layers 2\theads 3 \n# first\n1 2 3\n\n 0\t0 7");
  CHECK((t.layers == 2 && t.heads == 3));
  CHECK(t.of_heads == std::vector<std::int32_t>{1, 2, 3, 0, 0, 7});
  CHECK(t.of_layers == std::vector<std::int32_t>{6, 7});
}

TEST_CASE("a broken file of shares is refused, and the line is named") {
  auto const says = [](std::string const& text, std::string const& part) {
    std::string const said = refusal([&] { kvevict::read_shares(text); });
    CAPTURE(text, said);
    CHECK(said.find(part) != std::string::npos);
  };
  std::string const head = "kvevict shares 1\nlayers 2 heads 2\n";
  says("", "line 0 is not \"kvevict shares 1\"");
  says("layers 2 heads 2\n1 1\n1 1\n", "line 1 is not \"kvevict shares 1\"");
  says("kvevict shares 2\n", "line 1 is not \"kvevict shares 1\"");
  says("kvevict shares 1 x\n", "line 1 is not");
  says("kvevict shares 1\n", "is not \"layers L heads H\"");
  says("kvevict shares 1\nlayers 0 heads 2\n", "line 2 is not \"layers L heads H\"");
  says("kvevict shares 1\nlayers 2 heads 2 1\n", "line 2 is not \"layers L heads H\"");
  says("kvevict shares 1\nlayers 2 heads 99999999999\n", "line 2 is not \"layers L heads H\"");
  says(head + "1 1\n1\n", "line 4 has 1 numbers, but layer 1 has 2 heads");
  says(head + "1 1 1\n1 1\n", "line 3 has more than 2 numbers");
  says(head + "1 -1\n", "number 2 of line 3 is no whole number from 0 to 1000000");
  says(head + "1.5 1\n", "number 1 of line 3");
  says(head + "1 1000001\n", "number 2 of line 3");
  says(head + "600000 600000\n", "line 3 adds up to 1200000");
  says(head + "1 1\n# end\n", "ends after 1 of 2 layers");
  says(head + "1 1\n1 1\n1 1\n", "line 5 is of a layer more than the 2");
  says(head + "0 0\n0 0\n", "all are 0");
}

TEST_CASE("tables of other layers or heads are refused, and 0 keeps what is protected") {
  auto const q = stack_scores::random_question(4, 1, 1);
  kvevict::host ctx;
  std::deque<std::vector<std::byte>> memory;
  auto const put = [&](auto const& x) { return together::keep_bytes(memory, x); };
  together::model m;
  m.H = 2, m.lengths = {60, 60};
  std::vector<float> const scores(128, 0.5f);
  auto const view = m.view(put);
  auto const t = kvevict::read_shares("kvevict shares 1\nlayers 1 heads 2\n1 0\n");
  kvevict::policy const plain{stack_scores::given{scores.data(), 64}, kvevict::protect{.sinks = 2, .recent = 3}};
  kvevict::layers::table const of_layers{t.of_layers.data(), t.layers};
  kvevict::heads::table const of_heads{t.of_heads.data(), t.layers, t.heads};
  auto const keep = plan(ctx, plain.with(of_layers).with(of_heads), kvevict::contents(view), {.tokens_per_head = 20});
  CHECK((keep(0, 0).size == 35 && keep(0, 1).size == 5));
  auto const said = [&](auto const& policy, kvevict::budget const& b) {
    return refusal([&] { plan(ctx, policy, kvevict::contents(view), b); });
  };
  CHECK(said(plain.with(of_layers), {.tokens_per_head = 20, .layer_count = 2})
            .find("shares of 1 layers for a model of 2") != std::string::npos);
  CHECK(said(plain.with(of_heads), {.tokens_per_head = 20, .layer = 1, .layer_count = 2})
            .find("heads::table: shares of 1 layers of 2 heads") != std::string::npos);
  std::vector<std::int32_t> const wide{1, 2, 3, 4};  // of a model of four heads
  CHECK(said(plain.with(kvevict::heads::table{wide.data(), 1, 4}), {.tokens_per_head = 20})
            .find("heads::table: shares of 1 layers of 4 heads") != std::string::npos);
  CHECK(said(plain.with(kvevict::layers::table{}), {.tokens_per_head = 20}).find("layers::table: shares of 0") !=
        std::string::npos);
}

TEST_CASE("shares below 0 or beyond a million are refused") {
  kvevict::host ctx;
  std::deque<std::vector<std::byte>> memory;
  share_tables::check_range([&](auto const& x) { return together::keep_bytes(memory, x); },
                            [&](auto const& policy, auto const& view, kvevict::budget const& b) {
                              return refusal([&] { plan(ctx, policy, kvevict::contents(view), b); });
                            });
}

}  // namespace policy_share_tables_test
