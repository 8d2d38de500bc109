// SPDX-License-Identifier: Apache-2.0
// What plan, observe and replace refuse on a device: the host's reasons, and not a byte of the cache is another.
#include <functional>
#include <limits>
#include <memory>

#include <kvevict/cuda.cuh>
#include <kvevict/kvevict.hpp>

#include "simt/device_cache.hpp"
#include "support/batch_cache.hpp"
#include "support/catch.hpp"
#include "support/gate_case.hpp"
#include "support/keep_sets.hpp"

namespace bad_input_test {

using namespace simt_test;
using namespace support;
using Catch::Contains;
using kvevict::role;
namespace cuda = kvevict::cuda;
namespace presets = kvevict::presets;

namespace {

constexpr kvevict::budget twenty{.tokens_per_head = 20};
constexpr auto snapkv = presets::snapkv({.window = 8, .pool = 3});
constexpr auto ahakv = presets::ahakv({.recent = 8});
constexpr auto h2o = presets::h2o();

/// Two sequences in a cache with state and all their rows, on both sides.
struct room {
  batch in = random_batch(81, {.Hq = 4, .H = 2, .D = 8, .N = {40, 30}});
  layouts::cache<std::int32_t> cache;
  device_memory memory;
  std::unique_ptr<device_cache<std::int32_t>> copy;
  cuda::device ctx{default_stream()};

  explicit room(
      std::int32_t state_floats = 1, std::function<void(layouts::cache<std::int32_t>&)> const& change = [](auto&) {})
      : cache(layouts::layout::head_pages, shape(state_floats)) {
    fill(cache, in);
    cache.fill(role::state, [](int b, int h, int t, int c) { return b + h + t + c; });
    change(cache);
    copy = std::make_unique<device_cache<std::int32_t>>(cache);
  }
  layouts::cache_shape shape(std::int32_t state_floats) const {
    auto out = cache_shape_of(in);
    out.state_floats = state_floats;
    return out;
  }
  kvevict::layer_view<std::int32_t>& view() { return copy->view; }
  template <class Rows> Rows there(Rows const& rows) { return on_device_rows(memory, rows, 2); }

  /// call(ctx) is refused, at once or by wait(), with both parts in the message; the cache is as it was and the context
  /// goes on.
  template <class Call> void refuses(Call const& call, std::string const& what, std::string const& remedy) {
    auto const bytes = copy->snapshot();
    CHECK_THAT(refusal([&] { call(ctx), ctx.wait(); }), Contains(what) && Contains(remedy) && Contains("; "));
    CHECK((copy->snapshot() == bytes));
    CHECK(refusal([&] { ctx.wait(); }) == "");
  }
  template <class Policy, class Evidence>
  void plan_refuses(Policy const& p, Evidence const& e, std::string const& what, std::string const& remedy,
                    kvevict::budget const& b = twenty) {
    cuda::keep_set keep;
    refuses([&](cuda::device& on) { kvevict::plan(on, p, e, b, keep); }, what, remedy);
  }
  template <class Policy, class Evidence>
  void ignores(Policy const& p, Evidence const& e, std::string const& what, std::string const& remedy,
               kvevict::budget const& b = twenty) {
    refuses([&](cuda::device& on) { kvevict::observe(on, p, e, b); }, what, remedy);
  }
};

}  // namespace

TEST_CASE("bad input on a device: observing at a position below 0, which has no column in the ring") {
  for (std::size_t const rows : {1, 3})
    for (std::int32_t const position : {-1, -9, std::numeric_limits<std::int32_t>::min()}) {
      room r(8);
      attention some = last_rows(r.in, rows);
      some.positions[rows] = position;  // the oldest of sequence 1
      std::string const what = "a position of sequence 1 is " + std::to_string(position);
      r.ignores(ahakv, kvevict::step(r.view(), r.there(some.queries())), what, "logical position");
      r.ignores(ahakv, kvevict::step(r.view(), r.there(some.rows())), what, "logical position");
    }
}

TEST_CASE("bad input on a device: keys of a type that is not floating") {
  room r;
  auto const q = r.there(all_rows(r.in).queries());
  for (auto const type : {kvevict::dtype::i32, kvevict::dtype::opaque}) {
    auto view = r.view();
    auto& k = view.components[0];
    k.type = type, k.rows.run_bytes = 8 * kvevict::size_of(type);
    r.plan_refuses(snapkv, kvevict::prompt(view, q), std::string("keys of type ") + kvevict::name_of(type),
                   "f32, f16 and bf16");
    r.ignores(h2o, kvevict::step(view, q), std::string("keys of type ") + kvevict::name_of(type), "f32, f16 and bf16");
  }
}

TEST_CASE("bad input on a device: queries that begin between two elements") {
  room r;
  auto q = r.there(all_rows(r.in).queries());
  q.data = static_cast<std::byte const*>(q.data) + 1;
  r.plan_refuses(snapkv, kvevict::prompt(r.view(), q), "queries begin at an address", "of an element");
  r.ignores(h2o, kvevict::step(r.view(), q), "queries begin at an address", "of an element");
}

TEST_CASE("bad input on a device: offsets of evidence that are negative or descend") {
  room r;
  gate_case const gate({.N = {40, 30}, .H = 2});
  auto const policy = presets::attention_gate(on_device_gate(r.memory, gate.weights()));
  hidden const states = gate.states({0, 0}, {40, 30});
  attention const all = all_rows(r.in);
  for (auto const& begin :
       {std::vector<std::int32_t>{-40, 0, 30}, {0, 40, 30}, {0, 5, std::numeric_limits<std::int32_t>::min()}}) {
    std::int32_t const* const there = r.memory.put(begin);
    auto const e = [&](auto rows) {
      rows.row_begin = there;
      return kvevict::prompt(r.view(), rows);
    };
    std::string const from = begin[0] < 0 ? "row_begin starts at -40" : "row_begin descends at sequence 1";
    r.plan_refuses(snapkv, e(r.there(all.queries())), from, "B+1 ascending offsets");
    r.plan_refuses(snapkv, e(r.there(all.rows())), from, "B+1 ascending offsets");
    r.plan_refuses(policy, e(r.there(states.rows())), from, "B+1 ascending offsets");
    r.ignores(policy, e(r.there(states.rows())), from, "B+1 ascending offsets");
  }
}

TEST_CASE("bad input on a device: strides that do not step over a row") {
  room r;
  attention const all = all_rows(r.in);
  auto const q = r.there(all.queries());
  auto const w = r.there(all.rows());
  float const* const lse = r.memory.put(all.lse);
  for (std::int64_t const bad : {-32, 0}) {
    auto across = q, along = q;
    auto weights = w;
    across.head_stride = along.token_stride = weights.head_stride = bad;
    r.plan_refuses(snapkv, kvevict::prompt(r.view(), across), "queries of 8 elements are", "strides in elements");
    r.plan_refuses(snapkv, kvevict::prompt(r.view(), along), "queries of 8 elements are", "strides in elements");
    r.plan_refuses(snapkv, kvevict::prompt(r.view(), weights), "softmax rows of 40 elements are",
                   "strides in elements");
    r.plan_refuses(snapkv, kvevict::prompt(r.view(), q).with_lse(lse, bad, 1), "LSEs of 1 elements are",
                   "strides in elements");
  }
}

TEST_CASE("bad input on a device: scattered rows whose positions are not distinct") {
  for (int const where : {0, 1, 2}) {
    CAPTURE(where);
    room r(1, [&](auto& cache) {
      auto const at = [&](int b, int h, int t) -> std::int32_t& {
        return kvevict::element<std::int32_t>(cache.view, *cache.view.find(role::position), b, h, t);
      };
      if (where == 0) cache.fill(role::position, [](int, int, int, int) { return 0; });
      if (where == 1) at(1, 1, 29) = 28;
      if (where == 2) at(1, 1, 7) = std::numeric_limits<std::int32_t>::max();
    });
    auto const scattered = r.view().with_order(kvevict::row_order::scattered);
    std::string const what =
        where == 0 ? "the positions of sequence " : "the positions of sequence 1, head 1 are not distinct";
    auto const policy = presets::random({.sinks = 4, .recent = where == 2 ? 0 : 1});
    r.plan_refuses(policy, kvevict::contents(scattered), "plan: " + what, "role::position");
    r.plan_refuses(policy.with(kvevict::heads::adaptive{}), kvevict::contents(scattered), "plan: " + what,
                   "role::position");
    if (where != 2)
      r.ignores(h2o, kvevict::step(scattered, r.there(last_rows(r.in, 1).queries())), "observe: " + what,
                "role::position");
  }
}

TEST_CASE("bad input on a device: observing with a budget or stages that plan refuses") {
  room r;
  auto const e = kvevict::step(r.view(), r.there(last_rows(r.in, 1).queries()));
  std::int32_t const* const each = r.memory.put(std::vector<std::int32_t>{20, -5});
  r.ignores(h2o, e, "observe: a budget of -1 tokens for sequence 0", "give a count", {.tokens_per_head = -1});
  r.ignores(h2o, e, "observe: a budget of -5 tokens for sequence 1", "give a count",
            {.tokens_per_head = 20, .per_sequence = each});
  r.ignores(h2o.with(kvevict::layers::pyramid{0}), e, "beta is 0", "20", {20, 0, 4});
}

TEST_CASE("bad input on a device: no rows, no slots, a buffer that is not aligned") {
  room r;
  gate_case const gate({.N = {40, 30}, .H = 2});
  auto const policy = presets::attention_gate(on_device_gate(r.memory, gate.weights()));
  hidden const states = gate.states({0, 0}, {40, 30});
  attention const all = all_rows(r.in);
  auto q = r.there(all.queries());
  auto w = r.there(all.rows());
  auto x = r.there(states.rows());
  q.data = w.weights = nullptr, x.data = nullptr;
  r.plan_refuses(snapkv, kvevict::prompt(r.view(), q), "rows without data", "(B+1) offsets");
  r.plan_refuses(snapkv, kvevict::prompt(r.view(), w), "rows without data", "(B+1) offsets");
  r.plan_refuses(policy, kvevict::prompt(r.view(), x), "hidden states without data", "(B+1) offsets",
                 {.tokens_per_head = 40});
  r.ignores(policy, kvevict::prompt(r.view(), x), "hidden states without data", "(B+1) offsets");
  cuda::keep_set keep;
  kvevict::plan(r.ctx, presets::streaming_llm(), kvevict::contents(r.view()), {.tokens_per_head = 39}, keep);
  r.refuses([&](cuda::device& on) { replace(on, r.view(), keep, nullptr); }, "replace: slots is null", "device memory");
  on_device<std::byte> const memory(std::vector<std::byte>(1024));
  for (std::byte* const at : {memory.data() + 1, memory.data() + 128, static_cast<std::byte*>(nullptr)})
    CHECK_THAT(refusal([&] { cuda::device(default_stream(), at, 512); }),
               Contains("device: a buffer of 512 bytes") && Contains("; align it"));
}

TEST_CASE("bad input on a device: counts that are near the end of an int") {
  room r;
  std::int32_t const most = std::numeric_limits<std::int32_t>::max();
  r.plan_refuses(presets::streaming_llm().with(kvevict::protect{4, most}), kvevict::contents(r.view()),
                 "below the 40 protected tokens of sequence 0 (4 at the front, 2147483647 recent)", "protect fewer");
  r.plan_refuses(presets::snapkv({.window = 8, .pool = most}),
                 kvevict::prompt(r.view(), r.there(all_rows(r.in).queries())), "the width is 2147483647", "odd width");
}

TEST_CASE("bad input on a device: weights below 0, an unaligned prefix, NaN, and who says so") {
  room r;
  attention all = all_rows(r.in), one = last_rows(r.in, 1);
  all.weights[all.weights.size() - 11] = -0.01f;
  r.plan_refuses(snapkv, kvevict::prompt(r.view(), r.there(all.rows())),
                 "evidence: sequence 1, head 1: a softmax weight is above 1 or below 0", "not logits");
  r.plan_refuses(h2o, kvevict::prompt(r.view(), r.there(all.rows())),
                 "evidence: sequence 1, head 1: a softmax weight is above 1 or below 0", "not logits");
  auto const prefixed = r.view().with_read_only(r.memory.put(std::vector<std::int32_t>{0, 5}));
  r.plan_refuses(presets::streaming_llm(), kvevict::contents(prefixed),
                 "validate: read_only[1] = 5 tokens is not a multiple of the page size 16", "as a whole");
  one.q.back() = std::numeric_limits<float>::quiet_NaN();
  r.plan_refuses(presets::snapkv({.window = 1}), kvevict::prompt(r.view(), r.there(one.queries())),
                 "plan: the score of token", "is NaN");
  r.ignores(h2o, kvevict::step(r.view(), r.there(one.queries())), "observe: the score of token", "is NaN");
}

TEST_CASE("bad input on a device: an empty batch needs no rows") {
  room r;
  auto none = r.view();
  none.pages.sequences = 0;
  auto const all = [&](auto const& policy, auto const& rows) {
    cuda::keep_set keep;
    CHECK(refusal([&] { kvevict::plan(r.ctx, policy, kvevict::prompt(none, rows), twenty, keep), r.ctx.wait(); }) ==
          "");
    if constexpr (requires { policy.score.state_floats(); })
      CHECK(refusal([&] { kvevict::observe(r.ctx, policy, kvevict::prompt(none, rows), twenty), r.ctx.wait(); }) == "");
  };
  all(snapkv, kvevict::query_rows{}), all(snapkv, kvevict::attention_rows{});
  all(h2o, kvevict::query_rows{}), all(h2o, kvevict::attention_rows{});
}

}  // namespace bad_input_test
