// SPDX-License-Identifier: Apache-2.0
// A fault belongs to a sequence on a device, too: the others' plans and states go on without it, in the host's words.
#include "simt/same_words.hpp"
#include "support/gate_case.hpp"

namespace outcomes_test {

using namespace simt_test;

namespace {

/// plan on both, of evidence that make(on, view) gives: the same outcomes, and the host's keep set of the device's
/// scores where they agree up to rounding.
template <class Policy, class Make>
void alike_outcomes(room& r, Policy const& p, Make make, kvevict::budget b, std::vector<std::string> const& what) {
  on_host on;
  kvevict::keep_set want;
  std::vector<kvevict::outcome> said;
  kvevict::plan(on.ctx, p, make(on, r.cache.view), b, want, said);
  device_cache<std::int32_t> there(r.cache);
  on_gpu gpu;
  if (b.per_sequence != nullptr) b.per_sequence = gpu.memory.put(b.per_sequence, 2);
  cuda::keep_set keep;
  cuda::outcomes found;
  kvevict::plan(gpu.ctx, p, make(gpu, there.view), b, keep, found);
  auto const got = found.read(gpu.ctx);
  auto const kept = keep.read(gpu.ctx);
  REQUIRE(got.size() == 2);
  REQUIRE(said.size() == 2);
  for (std::size_t i = 0; i < 2; ++i) {
    CAPTURE(what, i);
    CHECK(got[i].message == said[i].message);
    CHECK((what[i].empty() ? got[i].sound() : got[i].message.find(what[i]) != std::string::npos));
    if (!what[i].empty()) CHECK((got[i].sequence == int32(i) && got[i].layer == 2 && said[i].layer == 2));
  }
  CHECK(kept.tokens == want.tokens);
  CHECK(kept.row_begin == want.row_begin);
  gpu.ctx.wait();  // nothing is left to tell
}

}  // namespace

TEST_CASE("both contexts leave out the same sequences for the same faults") {
  room r;
  attention const last = last_rows(r.in, 8);
  attention bad = last;
  bad.q[15 * 32] = no_number;
  auto const queries = [](attention const& a) {
    return [&a](auto& on, auto const& view) { return kvevict::prompt(view, on.rows(a.queries())); };
  };
  alike_outcomes(r, snapkv, queries(last), twenty, {"", ""});
  alike_outcomes(r, snapkv, queries(bad), twenty, {"", "plan: the score of token 0 of sequence 1, head 0 in layer 2"});
  alike_outcomes(r, snapkv.with(kvevict::heads::adaptive{}), queries(bad), twenty, {"", "is NaN"});
  std::vector<std::int32_t> const small{20, 3}, negative{-1, 20};
  kvevict::budget each = twenty;
  each.per_sequence = small.data();
  alike_outcomes(r, snapkv, queries(last), each, {"", "a budget of 3 tokens is below the 8 protected tokens"});
  each.per_sequence = negative.data();
  alike_outcomes(r, snapkv, queries(bad), each, {"a budget of -1 tokens for sequence 0", "is NaN"});
  attention const few = rows_of(r.in, whole_cache(r.in), {38, 22}, r.in.N);
  alike_outcomes(r, snapkv, queries(few), twenty, {"sequence 0 provides 2 query rows and the window needs 8", ""});
  bad = last;
  bad.weights[(15 * 4) * bad.slots + 3] = -1;
  alike_outcomes(r, snapkv, [&](auto& on, auto const& view) { return kvevict::prompt(view, on.rows(bad.rows())); },
                 twenty, {"", "a softmax weight is above 1 or below 0"});
}

TEST_CASE("both contexts leave the state of a sequence at fault alone, and observe the others") {
  room r;
  attention const last = last_rows(r.in, 3);
  attention bad = last;
  bad.q[5 * 32] = no_number, bad.positions[2] = -9;
  auto const see = [&](attention const& rows, bool const weights, std::vector<std::string> const& what) {
    device_cache<std::int32_t> there(r.cache);
    auto const before = r.cache.snapshot();
    std::vector<kvevict::outcome> said;
    on_host on;
    on_gpu gpu;
    cuda::outcomes found;
    auto const run = [&](auto& how, auto const& view, auto& out) {
      if (weights)
        kvevict::observe(how.ctx, h2o, kvevict::step(view, how.rows(rows.rows())), twenty, out);
      else
        kvevict::observe(how.ctx, h2o, kvevict::step(view, how.rows(rows.queries())), twenty, out);
    };
    run(on, r.cache.view, said), run(gpu, there.view, found);
    auto const got = found.read(gpu.ctx);
    gpu.ctx.wait();
    auto const state = [&](int b) { return r.cache.read(role::state, b, 0); };
    r.cache.restore(before);
    auto const was = std::pair(state(0), state(1));
    r.cache.restore(there.snapshot());
    auto const is = std::pair(state(0), state(1));
    for (std::size_t i = 0; i < 2; ++i) {
      CHECK(got[i].message == said[i].message);
      CHECK((what[i].empty() ? got[i].sound() : got[i].message.find(what[i]) != std::string::npos));
    }
    CHECK((is.first == was.first) == !what[0].empty());
    CHECK((is.second == was.second) == !what[1].empty());
    r.cache.restore(before);
  };
  see(last, false, {"", ""});
  see(bad, false, {"a position of sequence 0 is -9", "observe: the score of token 0 of sequence 1, head 0"});
  bad.positions = last.positions;
  see(bad, false, {"", "observe: the score of token 0 of sequence 1, head 0"});
  see(bad, true, {"", ""});
}

TEST_CASE("a fault of the view refuses all on a device, and no outcome says otherwise") {
  room r;
  r.cache.lengths()[2] = 1000;
  device_cache<std::int32_t> there(r.cache);
  on_gpu gpu;
  attention const last = last_rows(r.in, 8);
  cuda::keep_set keep;
  cuda::outcomes found;
  kvevict::plan(gpu.ctx, snapkv, kvevict::prompt(there.view, gpu.rows(last.queries())), twenty, keep, found);
  CHECK(refusal([&] { keep.read(gpu.ctx); }).find("1000 tokens, but its table addresses") != std::string::npos);
  for (auto const& it : found.read(gpu.ctx)) CHECK(it.sound());
}

TEST_CASE("layers that keep one set are not planned with outcomes on a device, and the keep set says so") {
  room r;
  device_cache<std::int32_t> there(r.cache);
  there.view.pages.layers = 2, there.view.can.one_set_for_layers = true;
  on_gpu gpu;
  cuda::keep_set keep;
  cuda::outcomes found;
  kvevict::budget const both{.tokens_per_head = 20, .layer_count = 2};
  auto const plan = [&] {
    kvevict::plan(gpu.ctx, kvevict::presets::streaming_llm(), kvevict::contents(there.view), both, keep, found);
  };
  CHECK(refusal(plan).find("the fault of one layer is that of all") != std::string::npos);
  CHECK(!refusal([&] { keep.read(gpu.ctx); }).empty());
}

TEST_CASE("what a device's exception says is where: layer, sequence, head and token") {
  room r;
  device_cache<std::int32_t> there(r.cache);
  on_gpu gpu;
  attention bad = last_rows(r.in, 8);
  bad.q[15 * 32 + 2 * 8] = no_number;
  cuda::keep_set keep;
  kvevict::plan(gpu.ctx, snapkv, kvevict::prompt(there.view, gpu.rows(bad.queries())), twenty, keep);
  try {
    keep.read(gpu.ctx);
    FAIL("nothing was thrown");
  } catch (kvevict::contract_violation const& fault) {
    CHECK((fault.layer == 2 && fault.sequence == 1 && fault.head == 1 && fault.token == 0));
  }
}

}  // namespace outcomes_test
