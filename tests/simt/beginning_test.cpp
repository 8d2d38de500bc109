// SPDX-License-Identifier: Apache-2.0
// State that begins: a device refuses what the host refuses, in its words, and writes the same bytes where it begins.
#include "simt/same_words.hpp"
#include "support/gate_case.hpp"

namespace beginning_test {

using namespace simt_test;
using kvevict::older_tokens;

TEST_CASE("both contexts say the same of tokens that nobody has observed") {
  room r;
  attention const all = all_rows(r.in), few = last_rows(r.in, 8);
  auto const says = [&](attention const& rows, std::vector<older_tokens> const& each, std::string const& what) {
    for (bool const weights : {false, true})
      alike(r.cache, what, [&](auto& on, auto const& view) {
        auto const see = [&](auto const& of) {
          observe(on.ctx, h2o, kvevict::prompt(view, on.rows(of)).with_older(on.put(each)), twenty);
        };
        weights ? see(rows.rows()) : see(rows.queries());
      });
  };
  auto const none = older_tokens::none, observed = older_tokens::observed;
  says(few, {observed, none}, "22 tokens of sequence 1, head 0 come before its new rows");
  says(few, {none, observed}, "32 tokens of sequence 0, head 0 come before its new rows");
  attention early = few;
  early.positions[0] = 0;
  says(early, {observed, observed}, "the first row of sequence 0, head 0 is at position 0, but 32 tokens");
  early.positions[0] = 31;
  says(early, {observed, observed},
       "32 tokens of sequence 0, head 0 come before its first row, which is at position 31");
  early = few;  // of drafts that are in the cache, behind them; more positions than tokens
  for (std::size_t i = 0; i < 8; ++i) early.positions[i] = static_cast<std::int32_t>(932 + i);
  r.cache.fill(role::position, [](int, int, int t, int) { return 901 + t; });
  says(early, {observed, observed},
       "the newest row of sequence 0, head 0 is at position 939 and the newest token at 940");
  r.cache.view.order = kvevict::row_order::scattered;  // and in a slot in the middle
  r.cache.fill(role::position, [](int b, int, int t, int) { return b == 1 && t == 17 ? 950 : 901 + t; });
  attention one = last_rows(r.in, 1);
  one.positions = {940, 930};
  says(one, {observed, observed},
       "the newest row of sequence 1, head 0 is at position 930 and the newest token at 950");
  r.cache.view.order = kvevict::row_order::ascending;
  r.cache.fill(role::position, [](int, int, int t, int) { return t; });
  gate_case const gate({.N = {40, 30}, .H = 2});
  hidden const part = gate.states({32, 22}, {40, 30});
  auto const gate_says = [&](std::vector<std::int32_t> const& tokens, std::string const& what) {
    alike(r.cache, what, [&](auto& on, auto const& view) {
      gate_rows memory = gate.memory(64);
      memory.tokens = tokens;
      auto const rows = on.rows(part.rows(tokens.empty() ? kvevict::gate_memory{} : memory.view()));
      observe(on.ctx, presets::attention_gate(on.gate(gate.weights())), kvevict::prompt(view, rows),
              {.tokens_per_head = 40});
    });
  };
  gate_says({}, "32 tokens of sequence 0, head 0 come before its new rows");
  gate_says({32, 21}, "22 tokens of sequence 1, head 0 come before its hidden states and the gate's memory holds 21");
}

TEST_CASE("both contexts start the same tokens at zero") {
  auto const zeroes = [](auto const& policy, std::int32_t floats, bool scattered, std::size_t rows) {
    room r(layout::head_pages, floats);
    if (scattered) r.cache.view.order = kvevict::row_order::scattered;
    attention const few = last_rows(r.in, rows);
    device_cache<std::int32_t> there(r.cache);
    std::vector<older_tokens> const each{older_tokens::zero, older_tokens::observed};
    on_host host;
    on_gpu gpu;
    auto const see = [&](auto& on, auto const& view) {
      observe(on.ctx, policy, kvevict::prompt(view, on.rows(few.queries())).with_older(on.put(each)), twenty);
      on.finish();
    };
    see(host, r.cache.view), see(gpu, there.view);
    auto const state = [&](int b) { return r.cache.read(role::state, b, 1); };
    auto const mine = std::pair(state(0), state(1));
    r.cache.restore(there.snapshot());
    for (auto const& [got, want] : {std::pair(state(0), mine.first), std::pair(state(1), mine.second)})
      for (std::size_t i = 0; i < want.size(); ++i) CHECK(got[i] == Approx(want[i]).epsilon(1e-5).margin(1e-6));
    CHECK(mine.first[0] < 1);   // attention alone
    CHECK(mine.second[0] > 1);  // what was there before
  };
  zeroes(h2o, 1, false, 3), zeroes(h2o, 1, true, 1);
  zeroes(ahakv, 8, false, 3), zeroes(ahakv, 8, true, 1);
  room r;
  gate_case const gate({.N = {40, 30}, .H = 2});
  hidden const part = gate.states({32, 22}, {40, 30});
  on_host host;
  on_gpu gpu;
  std::vector<std::int32_t> const padding{32, 22};
  for (bool const padded : {false, true}) {
    auto const before = r.cache.snapshot();
    auto const see = [&](auto& on, auto const& view) {
      kvevict::visibility sees;
      if (padded) sees.first_token = on.put(padding);
      observe(on.ctx, presets::attention_gate(on.gate(gate.weights()), {.sinks = 0}),
              kvevict::prompt(view, on.rows(part.rows()))
                  .with_visibility(sees)
                  .with_older(padded ? older_tokens::none : older_tokens::zero),
              {.tokens_per_head = 40});
      on.finish();
    };
    device_cache<std::int32_t> there(r.cache);
    see(host, r.cache.view), see(gpu, there.view);
    auto const mine = r.cache.read(role::state, 1, 1);
    r.cache.restore(there.snapshot());
    auto const got = r.cache.read(role::state, 1, 1);
    for (std::size_t i = 0; i < mine.size(); ++i) CHECK(got[i] == Approx(mine[i]).epsilon(1e-5));
    CHECK((mine[0] == 0 && mine[21] == 0 && mine[22] > 0));
    r.cache.restore(before);
  }
}

}  // namespace beginning_test
