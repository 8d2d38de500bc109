// SPDX-License-Identifier: Apache-2.0
// What is wrong with budgets, positions, scores and gates is refused by both contexts in the same words, case by case.
#include "simt/same_words.hpp"
#include "support/gate_case.hpp"

namespace same_words_scores_test {

using namespace simt_test;

TEST_CASE("both contexts say the same of budgets, positions and scores") {
  room r;
  attention const all = all_rows(r.in), one = last_rows(r.in, 1), few = last_rows(r.in, 3);
  std::vector<std::int32_t> const some{20, -5}, small{20, 3};
  for (auto const& [each, what] : {std::pair(&some, "a budget of -5 tokens for sequence 1"),
                                   std::pair(&small,
                                             "a budget of 3 tokens is below the 5 protected tokens of "
                                             "sequence 1 (4 at the front, 1 recent)")})
    alike(r.cache, what, [&, &each = each](auto& on, auto const& view) {
      kvevict::budget b = twenty;
      b.per_sequence = on.put(*each);
      plan(on.ctx, presets::random({.sinks = 4, .recent = 1}), contents(view), b);
    });
  observes_alike(r, h2o, few.queries(), "a budget of -1 tokens for sequence 0",
                 {.tokens_per_head = -1, .layer = 2, .layer_count = 5});
  attention early = few;
  early.positions[4] = -7;
  observes_alike(r, h2o, early.rows(), "a position of sequence 1 is -7");
  room more;
  for (auto& n : more.cache.lengths()) n = 2;
  observes_alike(more, h2o, few.queries(), "observe: 3 rows for 2 tokens");
  room scattered;
  scattered.cache.view.order = kvevict::row_order::scattered;
  scattered.cache.fill(role::position, [](int, int h, int t, int) { return h == 1 && t > 5 ? 5 : t; });
  alike(scattered.cache, "plan: the positions of sequence 0, head 1 are not distinct", [&](auto& on, auto const& view) {
    plan(on.ctx, presets::random({.sinks = 4, .recent = 1}), contents(view), twenty);
  });
  r.cache.set(*r.cache.view.find(role::k), 1, 1, 9, 3, no_number);
  plans_alike(r, snapkv, all.queries(), "plan: the score of token 0 of sequence 1, head 1 in layer 2 is NaN");
  observes_alike(r, h2o, few.queries(), "observe: the score of token 0 of sequence 1, head 1 in layer 2 is NaN");
  observes_alike(r, h2o, one.queries(), "observe: the score of token 0 of sequence 1, head 1 in layer 2 is NaN");
}

TEST_CASE("both contexts say the same of gates") {
  room r;
  gate_case const gate({.N = {40, 30}, .H = 2});
  auto const says = [&](hidden const& x, std::vector<std::int32_t> const& tokens, std::int32_t capacity,
                        kvevict::gate_mask sees, std::string const& what, bool observed) {
    alike(r.cache, what, [&](auto& on, auto const& view) {
      gate_rows memory = gate.memory(capacity);
      memory.tokens = tokens;
      auto policy = presets::attention_gate(on.gate(gate.weights()));
      policy.score.sees = sees;
      auto const rows = on.rows(x.rows(tokens.empty() ? kvevict::gate_memory{} : memory.view()));
      if (observed)
        observe(on.ctx, policy, prompt(view, rows), {.tokens_per_head = 40});
      else
        plan(on.ctx, policy, prompt(view, rows), {.tokens_per_head = 40});
    });
  };
  auto const causal = kvevict::gate_mask::causal, both = kvevict::gate_mask::bidirectional;
  hidden const all = gate.states({0, 0}, {40, 30}), part = gate.states({0, 0}, {39, 30});
  says(part, {}, 40, causal, "gate: sequence 0 provides 39 hidden states for 40 tokens in order", false);
  says(all, {0, 3}, 60, causal, "gate: the memory already holds 3 tokens of sequence 1", false);
  says(all, {0, 15}, 42, causal, "gate: 15 + 30 tokens of sequence 1 do not fit the memory's 42", true);
  says(all, {0, 3}, 42, both, "gate: sequence 1 continues after 3 tokens", true);
  gate_case broken({.N = {40, 30}, .H = 2});
  broken.X[1][4][2] = std::numeric_limits<double>::quiet_NaN();
  broken.store();
  says(broken.states({0, 0}, {40, 30}), {}, 40, causal, "gate: a keep probability is not a number", false);
}

}  // namespace same_words_scores_test
