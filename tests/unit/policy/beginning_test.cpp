// SPDX-License-Identifier: Apache-2.0
// State that begins: what reused pages hold is another request's, and never becomes a sequence's score unnoticed.
#include <kvevict/kvevict.hpp>

#include "support/batch_cache.hpp"
#include "support/catch.hpp"
#include "support/gate_case.hpp"

namespace policy_beginning_test {

using namespace support;
using Catch::Contains;
using kvevict::older_tokens;

namespace {

kvevict::budget const twenty{.tokens_per_head = 20};

/// Two sequences of 40 and 30 tokens in pages that hold what an earlier request has left in the state.
struct reused {
  batch in = random_batch(91, {.Hq = 4, .H = 2, .D = 8, .N = {40, 30}});
  std::int32_t floats;
  layouts::cache<std::int32_t> cache;
  kvevict::host ctx;

  explicit reused(std::int32_t state_floats = 1, bool clean = false)
      : floats(state_floats), cache(layouts::layout::head_pages, shape()) {
    fill(cache, in);
    cache.fill(kvevict::role::state, [=](int b, int h, int t, int c) { return clean ? 0 : b + h + t + c + 1; });
  }
  layouts::cache_shape shape() const {
    auto out = cache_shape_of(in);
    out.state_floats = floats;
    return out;
  }
  template <class Policy, class Evidence>
  void refuses(Policy const& p, Evidence const& e, std::string const& what, std::string const& remedy) {
    auto const before = cache.snapshot();
    CHECK_THROWS_WITH(kvevict::observe(ctx, p, e, twenty), Contains(what) && Contains(remedy));
    CHECK(cache.snapshot() == before);
  }
  auto state(int b) {
    std::vector<std::vector<double>> out;
    for (int h = 0; h < 2; ++h) {
      auto const row = cache.read(kvevict::role::state, b, h);
      out.emplace_back(row.begin(), row.end());
    }
    return out;
  }
};

template <class F> void with_policies(F f) { f(kvevict::presets::h2o()), f(kvevict::presets::ahakv({.recent = 8})); }

}  // namespace

TEST_CASE("beginning: a chunk behind tokens that nobody has observed is refused, unless they start at zero") {
  with_policies([](auto const& policy) {
    std::int32_t const floats = kvevict::state_floats(policy);
    reused r(floats), clean(floats, true);
    attention const rows = last_rows(r.in, 8);
    auto const check = [&](auto of) {
      reused here(floats);
      here.refuses(policy, kvevict::prompt(here.cache.view, of), "32 tokens of sequence 0, head 0 come before",
                   "older_tokens::zero");
      kvevict::observe(here.ctx, policy, kvevict::prompt(here.cache.view, of).with_older(older_tokens::zero), twenty);
      kvevict::observe(clean.ctx, policy, kvevict::step(clean.cache.view, of), twenty);
      for (int b = 0; b < 2; ++b) CHECK(here.state(b) == clean.state(b));
      clean.cache.fill(kvevict::role::state, [](int, int, int, int) { return 0; });
    };
    check(rows.queries()), check(rows.rows());
  });
}

TEST_CASE("beginning: what is zeroed is chosen for each sequence") {
  with_policies([](auto const& policy) {
    std::int32_t const floats = kvevict::state_floats(policy);
    reused r(floats), zero(floats), observed(floats);
    attention const rows = last_rows(r.in, 5);
    auto const see = [&](reused& of, auto const& older) {
      kvevict::observe(of.ctx, policy, kvevict::prompt(of.cache.view, rows.queries()).with_older(older), twenty);
    };
    older_tokens const each[] = {older_tokens::observed, older_tokens::zero};
    see(r, each), see(zero, older_tokens::zero), see(observed, older_tokens::observed);
    CHECK(r.state(0) == observed.state(0));
    CHECK(r.state(1) == zero.state(1));
    CHECK(zero.state(0) != observed.state(0));
    older_tokens const unsaid[] = {older_tokens::observed, older_tokens::none};
    r.refuses(policy, kvevict::step(r.cache.view, rows.queries()).with_older(unsaid), "25 tokens of sequence 1",
              "zero");
  });
}

TEST_CASE("beginning: a prompt's pages may hold anything, and a step says that its older tokens have been observed") {
  with_policies([](auto const& policy) {
    std::int32_t const floats = kvevict::state_floats(policy);
    reused r(floats), clean(floats, true);
    attention const all = all_rows(r.in);
    for (reused* of : {&r, &clean})
      kvevict::observe(of->ctx, policy, kvevict::prompt(of->cache.view, all.queries()), twenty);
    for (int b = 0; b < 2; ++b) CHECK(r.state(b) == clean.state(b));
    CHECK_NOTHROW(kvevict::observe(r.ctx, policy, kvevict::step(r.cache.view, last_rows(r.in, 1).queries()), twenty));
  });
}

TEST_CASE("beginning: positions contradict tokens that come before position 0, or more of them than positions") {
  reused r;
  auto const h2o = kvevict::presets::h2o();
  attention rows = last_rows(r.in, 8);
  for (std::size_t i = 0; i < 8; ++i) rows.positions[i] = static_cast<std::int32_t>(i);  // as if a chunk began at 0
  r.refuses(h2o, kvevict::step(r.cache.view, rows.queries()), "is at position 0, but 32 tokens", "logical positions");
  r.refuses(h2o, kvevict::prompt(r.cache.view, rows.rows()), "is at position 0, but 32 tokens", "logical positions");
  for (std::size_t i = 0; i < 8; ++i) rows.positions[i] = static_cast<std::int32_t>(31 + i);
  r.refuses(h2o, kvevict::step(r.cache.view, rows.queries()), "32 tokens of sequence 0", "at position 31");
  for (std::size_t i = 0; i < 8; ++i) rows.positions[i] = static_cast<std::int32_t>(932 + i);  // some were evicted
  for (std::size_t i = 8; i < 16; ++i) rows.positions[i] = static_cast<std::int32_t>(914 + i);
  r.cache.fill(kvevict::role::position, [](int, int, int t, int) { return 900 + t; });
  CHECK_NOTHROW(kvevict::observe(r.ctx, h2o, kvevict::step(r.cache.view, rows.queries()), twenty));
}

TEST_CASE("beginning: drafts behind the rows are refused in scattered rows, whatever their slot") {
  with_policies([](auto const& policy) {
    reused r(kvevict::state_floats(policy));
    r.cache.view.order = kvevict::row_order::scattered;
    attention rows = last_rows(r.in, 1);
    for (int const slot : {0, 17, 39}) {  // of the newest token of sequence 0; the others are in order
      r.cache.fill(kvevict::role::position,
                   [=](int b, int, int t, int) { return b == 0 && t == slot ? 950 : 900 + t; });
      rows.positions = {slot == 39 ? 938 : 939, 929};
      std::string const last = std::to_string(rows.positions[0]);
      r.refuses(policy, kvevict::step(r.cache.view, rows.queries()),
                "the newest row of sequence 0, head 0 is at position " + last + " and the newest token at 950",
                "or observe before they are written");
      rows.positions[0] = 950;
      CHECK_NOTHROW(kvevict::observe(r.ctx, policy, kvevict::step(r.cache.view, rows.queries()), twenty));
    }
  });
}

TEST_CASE("beginning: drafts behind the rows are refused, and left out by a view's lengths") {
  with_policies([](auto const& policy) {
    std::int32_t const floats = kvevict::state_floats(policy), accepted[] = {37, 27};
    reused r(floats), other(floats);  // with other drafts
    attention rows = last_rows(r.in, 5);
    for (std::size_t i = 0; i < rows.positions.size(); ++i)  // more than there are tokens, some of which were evicted
      rows.positions[i] = (i < 5 ? 932 : 922) + static_cast<std::int32_t>(i % 5);
    for (reused* const one : {&r, &other}) {
      one->cache.fill(kvevict::role::position, [](int, int, int t, int) { return 900 + t; });
      one->refuses(policy, kvevict::step(one->cache.view, rows.queries()),
                   "the newest row of sequence 0, head 0 is at position 936 and the newest token at 939",
                   "(drafts), whose state would be taken for theirs; observe a view whose lengths leave them out");
      one->refuses(policy, kvevict::step(one->cache.view, rows.rows()), "the newest token at 939", "lengths");
    }
    other.cache.for_each_slot([&](int b, int h, int t) {
      kvevict::component const& k = *other.cache.view.find(kvevict::role::k);
      for (int d = 0; d < 8 && t >= accepted[b]; ++d) other.cache.set(k, b, h, t, d, 7);
    });
    for (reused* const one : {&r, &other}) {
      auto view = one->cache.view;
      view.lengths = {accepted, 1, 0};
      kvevict::observe(one->ctx, policy, kvevict::step(view, rows.queries()), twenty);
    }
    reused const before(floats);
    for (int b = 0; b < 2; ++b)
      for (int h = 0; h < 2; ++h) {
        auto const now = r.cache.read(kvevict::role::state, b, h), old = before.cache.read(kvevict::role::state, b, h);
        auto const drafts = static_cast<std::ptrdiff_t>(3 * floats);
        CHECK(now == other.cache.read(kvevict::role::state, b, h));
        CHECK(now != old);
        CHECK(std::equal(now.end() - drafts, now.end(), old.end() - drafts));
      }
  });
}

TEST_CASE("beginning: rows behind a read-only prefix are a beginning, for its state is not read before it is copied") {
  reused r;
  std::vector<std::int32_t> const fixed{32, 16};
  auto const view = r.cache.view.with_read_only(fixed.data());
  attention const behind = rows_of(r.in, whole_cache(r.in), {32, 16}, r.in.N), few = last_rows(r.in, 8);
  r.refuses(kvevict::presets::h2o(), kvevict::prompt(view, few.queries()), "22 tokens of sequence 1", "step()");
  CHECK_NOTHROW(kvevict::observe(r.ctx, kvevict::presets::h2o(), kvevict::prompt(view, behind.queries()), twenty));
}

TEST_CASE("beginning: a gate's memory tells which tokens it has observed") {
  reused r;
  gate_case const gate({.N = {40, 30}, .H = 2});
  auto const policy = kvevict::presets::attention_gate(gate.weights(), {.sinks = 0});
  hidden const last = gate.states({32, 22}, {40, 30});
  gate_rows memory = gate.memory(64);
  auto const see = [&](kvevict::gate_memory const& m) { return kvevict::prompt(r.cache.view, last.rows(m)); };
  r.refuses(policy, see({}), "32 tokens of sequence 0, head 0 come before", "with_older(older_tokens::observed)");
  memory.tokens = {32, 21};
  r.refuses(policy, see(memory.view()), "22 tokens of sequence 1, head 0", "the gate's memory holds 21");
  kvevict::observe(r.ctx, policy, see({}).with_older(older_tokens::zero), twenty);
  for (int b = 0; b < 2; ++b)
    for (auto const& row : r.state(b))
      for (std::size_t j = 0; j < row.size(); ++j) CHECK((row[j] == 0) == (j + 8 < row.size()));
  std::vector<std::int32_t> const padding{32, 22};
  for (auto const what : {kvevict::older_tokens::none, kvevict::older_tokens::zero}) {
    r.cache.fill(kvevict::role::state, [](int, int, int, int) { return garbage; });
    kvevict::visibility sees;
    sees.first_token = padding.data();
    kvevict::observe(r.ctx, policy, see({}).with_visibility(sees).with_older(what), twenty);
    for (int b = 0; b < 2; ++b)
      for (auto const& row : r.state(b))
        for (std::size_t j = 0; j < row.size(); ++j) CHECK((row[j] == 0) == (j + 8 < row.size()));
  }
  memory.tokens = {32, 22}, memory.rows.assign(memory.rows.size(), 0.5f);
  CHECK_NOTHROW(kvevict::observe(r.ctx, policy, see(memory.view()), twenty));
}

}  // namespace policy_beginning_test
