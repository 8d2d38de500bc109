// SPDX-License-Identifier: Apache-2.0
// More rows may be announced to a device than there are, and none.
#include "simt/same_words.hpp"
#include "support/gate_case.hpp"

namespace most_rows_test {

using namespace simt_test;

TEST_CASE("more rows may be announced than there are, and a batch may be wholly idle") {
  auto const same_state = [](auto const& policy, std::int32_t floats, std::size_t rows, bool scattered) {
    room r(layout::head_pages, floats), again(layout::head_pages, floats);
    attention const newest = last_rows(r.in, rows);
    std::vector<std::vector<std::vector<std::byte>>> after;
    for (std::int32_t const spare : {0, 1, 5, 40}) {
      device_cache<std::int32_t> there(r.cache);
      if (scattered) there.view.order = kvevict::row_order::scattered;
      on_gpu gpu;
      gpu.spare = spare;
      CHECK(refusal([&] {
              observe(gpu.ctx, policy, step(there.view, gpu.rows(newest.queries())), twenty);
              gpu.finish();
              observe(gpu.ctx, policy, step(there.view, gpu.rows(newest.rows())), twenty);
              gpu.finish();
            }) == "");
      after.push_back(there.snapshot());
    }
    for (auto const& it : after) CHECK((it == after[0]));
    CHECK((after[0] != again.cache.snapshot()));
  };
  same_state(h2o, 1, 1, false), same_state(h2o, 1, 3, false), same_state(h2o, 1, 1, true);
  same_state(presets::ahakv({.recent = 8}), 8, 1, false), same_state(presets::ahakv({.recent = 8}), 8, 5, false);
  same_state(presets::ahakv({.recent = 8}), 8, 11, false), same_state(presets::ahakv({.recent = 8}), 8, 1, true);
  room r;
  attention const all = all_rows(r.in);
  std::vector<std::int32_t> const nothing{0, 0, 0};
  gate_case const gate({.N = {40, 30}, .H = 2});
  kvevict::budget const plenty{.tokens_per_head = 64};
  for (std::int32_t const most : {0, 7})
    for (bool const data : {true, false}) {
      auto const idle = [&](auto& on, auto rows, auto& pointer) {
        rows.row_begin = on.put(nothing), rows.most_rows = most;
        if (!data) pointer(rows) = nullptr;
        return rows;
      };
      auto const data_of = [](auto& rows) -> auto& { return rows.data; };
      auto const weights_of = [](auto& rows) -> auto& { return rows.weights; };
      alike(r.cache, "", [&](auto& on, auto const& view) {
        plan(on.ctx, snapkv, prompt(view, idle(on, on.rows(all.queries()), data_of)), plenty);
        plan(on.ctx, snapkv, prompt(view, idle(on, on.rows(all.rows()), weights_of)), plenty);
        plan(on.ctx, h2o, prompt(view, idle(on, on.rows(all.queries()), data_of)), plenty);
        auto const policy = presets::attention_gate(on.gate(gate.weights()));
        observe(on.ctx, policy, prompt(view, idle(on, on.rows(gate.states({0, 0}, {40, 30}).rows()), data_of)), plenty);
      });
    }
  alike(r.cache, "", [&](auto& on, auto const& view) {
    auto q = on.rows(all.queries());
    q.most_rows = 1000;
    plan(on.ctx, snapkv, prompt(view, q), twenty);
  });
  on_gpu gpu;
  device_cache<std::int32_t> there(r.cache);
  auto without = gpu.rows(last_rows(r.in, 2).queries());
  without.positions = nullptr;
  CHECK(refusal([&] {
          observe(gpu.ctx, h2o, step(there.view, without), twenty), gpu.finish();
        }).find("observe: the rows carry no positions") == 0);
  auto q = gpu.rows(all.queries());
  for (std::int32_t const most : {0, 8, 39}) {
    q.most_rows = most;
    std::string const text = refusal([&] { plan(gpu.ctx, snapkv, prompt(there.view, q), twenty), gpu.finish(); });
    INFO(text);
    CHECK(text.find("sequence 0 provides 40 rows, but most_rows is " + std::to_string(most)) != std::string::npos);
  }
  q.most_rows = -1;
  CHECK(refusal([&] { plan(gpu.ctx, snapkv, prompt(there.view, q), twenty); }).find("most_rows is -1") !=
        std::string::npos);
}

}  // namespace most_rows_test
