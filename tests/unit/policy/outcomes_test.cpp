// SPDX-License-Identifier: Apache-2.0
// A fault belongs to a sequence: its place is known, and the other sequences' plans and states go on without it.
#include <limits>

#include <kvevict/kvevict.hpp>

#include "support/batch_cache.hpp"
#include "support/catch.hpp"
#include "support/gate_case.hpp"
#include "support/stack.hpp"

namespace policy_outcomes_test {

using namespace support;
using Catch::Contains;

namespace {

constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();
constexpr kvevict::budget twenty{.tokens_per_head = 20, .layer = 3, .layer_count = 5};
constexpr auto snapkv = kvevict::presets::snapkv({.window = 4, .pool = 1});

struct room {
  batch in = random_batch(98, {.Hq = 4, .H = 2, .D = 8, .N = {40, 30, 35}});
  attention last = last_rows(in, 6);
  layouts::cache<std::int32_t> cache;
  kvevict::host ctx;
  std::vector<kvevict::outcome> outcomes;

  room() : cache(layouts::layout::head_pages, shape()) {
    fill(cache, in);
    cache.fill(kvevict::role::state, [](int b, int h, int t, int c) { return b + h + t + c; });
  }
  layouts::cache_shape shape() const {
    auto out = cache_shape_of(in);
    out.state_floats = 1;
    return out;
  }
  auto const& view() const { return cache.view; }
  /// Sequence 1 is at fault with these words; the others are planned as without it, and it is kept whole.
  template <class Policy, class Evidence, class Sound>
  void is_left_out(Policy const& p, Evidence const& e, Sound const& sound, kvevict::budget const& b,
                   std::string const& what, std::int32_t head) {
    kvevict::keep_set out;
    CHECK_THROWS_WITH(kvevict::plan(ctx, p, e, b, out), Contains(what));
    kvevict::plan(ctx, p, e, b, out, outcomes);
    REQUIRE(outcomes.size() == 3);
    CHECK((outcomes[0].sound() && outcomes[2].sound()));
    CHECK_THAT(outcomes[1].message, Contains(what));
    CHECK((outcomes[1].sequence == 1 && outcomes[1].layer == 3 && outcomes[1].head == head));
    kvevict::keep_set const want = kvevict::plan(ctx, p, sound, twenty);
    for (std::int32_t q = 0; q < 3; ++q)
      for (std::int32_t h = 0; h < 2; ++h) {
        auto const row = out(q, h), wanted = want(q, h);
        if (q == 1)
          CHECK(row.size == 30);
        else
          CHECK(std::vector(row.begin(), row.end()) == std::vector(wanted.begin(), wanted.end()));
      }
  }
};

/// The place of what call() raises.
template <class Call> kvevict::outcome place_of(Call call) {
  try {
    call();
  } catch (kvevict::contract_violation const& fault) {
    return kvevict::outcome::of(fault);
  }
  return {};
}

}  // namespace

TEST_CASE("outcomes: one sequence's fault keeps it whole, and the others are planned as ever") {
  room r;
  auto const sound = kvevict::prompt(r.view(), r.last.queries());
  attention bad = r.last;
  bad.q[(6 + 5) * 32 + 2 * 8] = not_a_number;  // the last row of sequence 1, query head 2: KV head 1
  r.is_left_out(snapkv, kvevict::prompt(r.view(), bad.queries()), sound, twenty, "is NaN", 1);
  std::vector<std::int32_t> const each{20, 3, 20}, negative{20, -4, 20};
  kvevict::budget b = twenty;
  b.per_sequence = each.data();
  r.is_left_out(snapkv, sound, sound, b, "a budget of 3 tokens is below the 4 protected tokens of sequence 1", -1);
  b.per_sequence = negative.data();
  r.is_left_out(snapkv, sound, sound, b, "a budget of -4 tokens for sequence 1", -1);
  attention few = rows_of(r.in, whole_cache(r.in), {34, 28, 29}, r.in.N);
  r.is_left_out(snapkv, kvevict::prompt(r.view(), few.queries()), sound, twenty, "provides 2 query rows", -1);
  bad = r.last;
  for (std::size_t i = 6 * 4; i < 12 * 4; ++i) bad.lse[i] -= 3;
  r.is_left_out(snapkv, kvevict::prompt(r.view(), bad.queries()).with_lse(bad.lse.data(), bad.lse_stride(), 1),
                kvevict::prompt(r.view(), r.last.queries()).with_lse(r.last.lse.data(), r.last.lse_stride(), 1), twenty,
                "sequence 1, head 0", 0);
  bad = r.last;
  bad.weights[(6 + 5) * 4 * bad.slots + 3] = -1;
  r.is_left_out(snapkv, kvevict::prompt(r.view(), bad.rows()), kvevict::prompt(r.view(), r.last.rows()), twenty,
                "a softmax weight is above 1 or below 0", 0);
}

TEST_CASE("outcomes: several faults, and none") {
  room r;
  attention bad = r.last;
  for (std::size_t const b : {0, 2}) bad.q[(b * 6 + 5) * 32] = not_a_number;
  kvevict::keep_set out;
  kvevict::plan(r.ctx, snapkv.with(kvevict::heads::adaptive{}), kvevict::prompt(r.view(), bad.queries()), twenty, out,
                r.outcomes);
  for (std::size_t b : {0, 2}) CHECK((!r.outcomes[b].sound() && r.outcomes[b].sequence == int32(b)));
  CHECK((r.outcomes[1].sound() && out(1, 0).size + out(1, 1).size == 40));
  CHECK((out(0, 0).size == 40 && out(2, 1).size == 35));
  auto const sound = kvevict::prompt(r.view(), r.last.queries());
  kvevict::plan(r.ctx, snapkv, sound, twenty, out, r.outcomes);
  for (auto const& it : r.outcomes) CHECK(it.sound());
  CHECK(out.tokens == kvevict::plan(r.ctx, snapkv, sound, twenty).tokens);
}

TEST_CASE("outcomes: a fault of the view or of a call refuses all") {
  room r;
  kvevict::keep_set out;
  auto const refuses = [&](auto const& e, kvevict::budget const& b) {
    CHECK_THROWS_AS(kvevict::plan(r.ctx, snapkv, e, b, out, r.outcomes), kvevict::contract_violation);
    CHECK(out.refused);
  };
  r.cache.lengths()[2] = 1000;
  refuses(kvevict::prompt(r.view(), r.last.queries()), twenty);
  auto const fault =
      place_of([&] { kvevict::plan(r.ctx, snapkv, kvevict::prompt(r.view(), r.last.queries()), twenty); });
  CHECK((fault.sequence == 1 && fault.head == 0 && fault.layer == 3));
  r.cache.lengths()[2] = 30;
  refuses(kvevict::prompt(r.view(), r.last.queries()), {.tokens_per_head = 20, .layer = 4, .layer_count = 2});
  auto q = r.last.queries();
  q.head_dim = 4;
  refuses(kvevict::prompt(r.view(), q), twenty);
}

TEST_CASE("outcomes: what one sequence's rows have wrong leaves its state alone, and the others' are observed") {
  room r, want;
  auto const h2o = kvevict::presets::h2o();
  attention bad = r.last;
  bad.q[(6 + 1) * 32] = not_a_number;
  kvevict::observe(r.ctx, h2o, kvevict::step(r.view(), bad.queries()), twenty, r.outcomes);
  CHECK((!r.outcomes[1].sound() && r.outcomes[0].sound() && r.outcomes[2].sound()));
  attention const without = rows_of(r.in, whole_cache(r.in), {34, 30, 29}, r.in.N);
  kvevict::observe(want.ctx, h2o, kvevict::step(want.view(), without.queries()), twenty);
  CHECK(r.cache.snapshot() == want.cache.snapshot());
  gate_case gate({.N = {40, 30, 35}, .H = 2});
  auto const policy = kvevict::presets::attention_gate(gate.weights()).with(kvevict::protect{2, 4});
  auto const sound = gate.states({0, 0, 0}, {40, 30, 35});
  gate.X[1][4][2] = std::numeric_limits<double>::quiet_NaN(), gate.store();
  auto const states = gate.states({0, 0, 0}, {40, 30, 35});
  r.is_left_out(policy, kvevict::prompt(r.view(), states.rows()), kvevict::prompt(r.view(), sound.rows()), twenty,
                "a keep probability is not a number", -1);
}

TEST_CASE("outcomes: an exception says where") {
  room r;
  attention bad = r.last;
  bad.q[(6 + 5) * 32 + 2 * 8] = not_a_number;
  auto const fault = place_of([&] { kvevict::plan(r.ctx, snapkv, kvevict::prompt(r.view(), bad.queries()), twenty); });
  CHECK((fault.layer == 3 && fault.sequence == 1 && fault.head == 1 && fault.token == 0));
  std::vector<std::int32_t> const small{20, 20, 2};
  kvevict::budget b = twenty;
  b.per_sequence = small.data();
  auto const of_budget =
      place_of([&] { kvevict::plan(r.ctx, snapkv, kvevict::prompt(r.view(), r.last.queries()), b); });
  CHECK((of_budget.layer == 3 && of_budget.sequence == 2 && of_budget.head == -1 && of_budget.token == -1));
  auto const of_none = place_of([&] {
    kvevict::plan(r.ctx, snapkv.with(kvevict::protect{-1}), kvevict::prompt(r.view(), r.last.queries()), twenty);
  });
  CHECK((of_none.sequence == -1 && of_none.layer == -1 && !of_none.sound()));
  batch const in = random_batch(96, {.Hq = 4, .H = 2, .D = 8, .N = {30, 26, 30, 26}, .future = 0});
  attention rows = last_rows(in, 5);
  rows.q[19 * 32] = not_a_number;  // of sequence 3: the second one of layer 1
  stack layers(in, 2, placed::layers_apart, true);
  auto const of_stack = place_of([&] {
    kvevict::plan(r.ctx, snapkv, kvevict::prompt(layers.whole(), rows.queries()),
                  {.tokens_per_head = 12, .layer = 1, .layer_count = 3});
  });
  CHECK((of_stack.sequence == 3 && of_stack.layer == 2 && of_stack.head == 0));
  std::vector<std::int32_t> const tight{12, 12, 12, 2};
  attention const sound = last_rows(in, 5);
  auto const of_layer = place_of([&] {
    kvevict::plan(r.ctx, snapkv, kvevict::prompt(layers.whole(), sound.queries()),
                  {.tokens_per_head = 12, .layer = 1, .layer_count = 3, .per_sequence = tight.data()});
  });
  CHECK((of_layer.sequence == 3 && of_layer.layer == 2));
}

TEST_CASE("outcomes: where layers keep one set, a fault in one of them is that of all, and other sequences go on") {
  batch const in = random_batch(95, {.Hq = 4, .H = 2, .D = 8, .N = {30, 26, 30, 26, 30, 26}, .future = 0});
  stack layers(in, 3, placed::layers_apart, true);
  auto const policy = snapkv.with(kvevict::layers::together{});
  kvevict::budget const ask{.tokens_per_head = 12, .layer_count = 3};
  attention const rows = last_rows(in, 5);
  kvevict::host ctx;
  auto const want = kvevict::plan(ctx, policy, kvevict::prompt(layers.whole(), rows.queries()), ask);
  for (std::int32_t l = 0; l < 3; ++l) {
    CAPTURE(l);
    attention bad = rows;
    bad.q[static_cast<std::size_t>(l * 10 + 9) * 32] = not_a_number;  // of sequence 1
    kvevict::keep_set out;
    std::vector<kvevict::outcome> outcomes;
    kvevict::plan(ctx, policy, kvevict::prompt(layers.whole(), bad.queries()), ask, out, outcomes);
    for (std::int32_t b = 0; b < 6; ++b) {
      auto const& it = outcomes[static_cast<std::size_t>(b)];
      CHECK(it.sound() == (b % 2 == 0));
      if (b % 2 != 0) {
        CHECK((it.layer == l && it.sequence == 2 * l + 1));
        CHECK_THAT(it.message, Contains("is NaN"));
      }
      for (std::int32_t h = 0; h < 2; ++h) {
        auto const row = out(b, h), wanted = want(b, h);
        if (b % 2 != 0)
          CHECK(row.size == 26);
        else
          CHECK(std::vector(row.begin(), row.end()) == std::vector(wanted.begin(), wanted.end()));
      }
    }
  }
}

TEST_CASE("outcomes: heads that do not hold the same tokens are a fault of their sequence") {
  room r;
  r.cache.set(*r.view().find(kvevict::role::position), 1, 1, 29, 0, 99);
  kvevict::keep_set out;
  kvevict::plan(r.ctx, snapkv.with(kvevict::heads::together{}), kvevict::prompt(r.view(), r.last.queries()), twenty,
                out, r.outcomes);
  CHECK((r.outcomes[0].sound() && r.outcomes[2].sound()));
  CHECK((r.outcomes[1].sequence == 1 && r.outcomes[1].head == 1 && r.outcomes[1].token == 29));
  CHECK_THAT(r.outcomes[1].message, Contains("token 29 of heads 0 and 1 of sequence 1 has position 29 and 99"));
  CHECK((out(0, 0).size == 20 && out(1, 0).size == 30 && out(1, 1).size == 30 && out(2, 1).size == 20));
}

}  // namespace policy_outcomes_test
