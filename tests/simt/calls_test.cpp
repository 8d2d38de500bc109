// SPDX-License-Identifier: Apache-2.0
// A refusal belongs to the call that was refused: its keep set and its ticket tell, and those of no other call.
#include <deque>
#include <limits>
#include <optional>

#include <kvevict/cuda.cuh>

#include "simt/device_cache.hpp"
#include "support/batch_cache.hpp"
#include "support/catch.hpp"
#include "support/keep_sets.hpp"
#include "support/stack.hpp"

namespace calls_test {

using namespace simt_test;
using namespace support;
using Catch::Contains;
namespace cuda = kvevict::cuda;
namespace presets = kvevict::presets;

namespace {

constexpr auto snapkv = presets::snapkv({.window = 8, .pool = 3});
constexpr auto h2o = presets::h2o({.recent = 5});
constexpr float no_number = std::numeric_limits<float>::quiet_NaN();

/// A layer's cache, with state, on a device; `wrong`: a key of sequence 1, head 1 is NaN.
struct layer {
  batch in;
  layouts::cache<std::int32_t> cache;
  device_memory memory;
  std::optional<device_cache<std::int32_t>> there;
  kvevict::query_rows queries, newest;
  std::int32_t number;
  std::vector<std::vector<std::byte>> before;

  explicit layer(std::int32_t l, bool wrong = false)
      : in(random_batch(60 + static_cast<std::uint64_t>(l), {.Hq = 4, .H = 2, .D = 16, .N = {40, 30}})),
        cache(layouts::layout::head_pages, with_state(in)),
        number(l) {
    fill(cache, in);
    cache.fill(kvevict::role::state, [](int b, int h, int t, int) { return b + h + (t * 7) % 13; });
    if (wrong) cache.set(*cache.view.find(kvevict::role::k), 1, 1, 9, 3, no_number);
    there.emplace(cache);
    queries = on_device_rows(memory, all_rows(in).queries(), 2);
    newest = on_device_rows(memory, last_rows(in, 3).queries(), 2);
    before = there->snapshot();
  }
  static layouts::cache_shape with_state(batch const& in) {
    auto out = cache_shape_of(in);
    out.state_floats = 1;
    return out;
  }
  kvevict::budget ask() const { return {.tokens_per_head = 20, .layer = number, .layer_count = 3}; }
  bool untouched() const { return there->snapshot() == before; }

  void plan(cuda::device& ctx, cuda::keep_set& keep) const {
    kvevict::plan(ctx, snapkv, kvevict::prompt(there->view, queries), ask(), keep);
  }
  void plan_from_state(cuda::device& ctx, cuda::keep_set& keep) const {
    kvevict::plan(ctx, h2o, kvevict::remembered(there->view), ask(), keep);
  }
  void observe(cuda::device& ctx) const { kvevict::observe(ctx, h2o, kvevict::step(there->view, newest), ask()); }
  void compact(cuda::device& ctx, cuda::keep_set const& keep, cuda::compacted<std::int32_t>& done) const {
    kvevict::compact(ctx, there->view, keep, kvevict::compaction::stable, done);
  }
};

struct layers {
  std::deque<layer> all;
  std::deque<cuda::keep_set> keeps{3};
  std::deque<cuda::compacted<std::int32_t>> tickets{3};
  explicit layers(std::int32_t wrong) {
    for (std::int32_t l = 0; l < 3; ++l) all.emplace_back(l, l == wrong);
  }
};

/// A kernel of one's own.
struct counter {
  static constexpr int max_threads = 32;
  cuda::watched watch;
  std::uint32_t* ran;

  KVEVICT_DEVICE void operator()(cuda::thread& t) const {
    if (!watch.stopped(t)) cuda::atomic_add(t, ran, 1u);
  }
};

std::string said(cuda::device& ctx) {
  return refusal([&] { ctx.wait(); });
}

}  // namespace

TEST_CASE("of three layers in a stream the one with a NaN is refused, and the others are done") {
  for (bool const by_state : {false, true})
    for (bool const backwards : {false, true}) {
      CAPTURE(by_state, backwards);
      layers const model(1);
      auto& [all, keeps, tickets] = const_cast<layers&>(model);
      cuda::device ctx(default_stream());
      for (std::size_t l = 0; l < 3; ++l) {
        if (by_state)
          all[l].observe(ctx), all[l].plan_from_state(ctx, keeps[l]);
        else
          all[l].plan(ctx, keeps[l]);
        all[l].compact(ctx, keeps[l], tickets[l]);
      }
      for (std::size_t i = 0; i < 3; ++i) {
        std::size_t const l = backwards ? 2 - i : i;
        CAPTURE(l);
        std::string const text = refusal([&] { tickets[l].wait(ctx); });
        if (l == 1) {
          CHECK_THAT(text, Contains(by_state ? "observe: the score of" : "plan: the score of") &&
                               Contains("of sequence 1, head 1 in layer 1 is NaN"));
          CHECK_FALSE(tickets[l].ok());
          CHECK(all[l].untouched());
          CHECK(refusal([&] { tickets[l].wait(ctx); }) == text);
          CHECK(refusal([&] { keeps[l].read(ctx); }) == text);
          continue;
        }
        CHECK(text == "");
        CHECK(tickets[l].ok());
        CHECK(std::all_of(tickets[l].lengths().begin(), tickets[l].lengths().end(), [](int n) { return n == 20; }));
        CHECK_FALSE(all[l].untouched());
        CHECK(keeps[l].read(ctx).kept() == 80);
      }
      CHECK(said(ctx) == "");  // it has been told
    }
}

TEST_CASE("a refused plan is known to whoever takes its keep set, in any context, whether or not anybody waited") {
  for (int const when : {0, 1, 2}) {  // the context goes at once; has been waited for; is there still
    CAPTURE(when);
    layer const it(1, true), fine(0);
    cuda::keep_set keep;
    std::optional<cuda::device> first(std::in_place, default_stream());
    fine.plan(*first, keep);
    it.plan(*first, keep);
    if (when == 1) CHECK_THAT(said(*first), Contains("plan: the score of"));
    if (when != 2) first.reset();
    cuda::device other(default_stream());
    cuda::compacted<std::int32_t> done;
    it.compact(other, keep, done);
    CHECK_THAT(refusal([&] { done.wait(other); }), Contains("plan: the score of") && Contains("sequence 1, head 1"));
    CHECK(it.untouched());
    on_device<std::int32_t> const slots(std::vector<std::int32_t>(4));
    CHECK(said(other) == "");
    replace(other, it.there->view, keep, slots.data());
    CHECK_THAT(said(other), Contains("plan: the score of") && Contains("sequence 1, head 1"));
    CHECK(said(other) == "");
    fine.plan(other, keep);
    fine.compact(other, keep, done);
    CHECK(refusal([&] { done.wait(other); }) == "");
    CHECK(done.ok());
  }
}

TEST_CASE("a keep set whose plan was refused at once is not applied") {
  layer const it(0);
  cuda::device ctx(default_stream());
  cuda::keep_set keep;
  cuda::compacted<std::int32_t> done;
  it.plan(ctx, keep);
  auto wrong = it.queries;
  wrong.head_dim = 15;
  CHECK_THAT(refusal([&] { kvevict::plan(ctx, snapkv, kvevict::prompt(it.there->view, wrong), it.ask(), keep); }),
             Contains("both must be D"));
  CHECK_THAT(refusal([&] { it.compact(ctx, keep, done); }), Contains("compact: ") && Contains("plan again"));
  CHECK_THAT(refusal([&] { done.wait(ctx); }), Contains("refused at once"));
  on_device<std::int32_t> const slots(std::vector<std::int32_t>(4));
  CHECK_THAT(refusal([&] { replace(ctx, it.there->view, keep, slots.data()); }),
             Contains("replace: ") && Contains("plan again"));
  CHECK_THAT(refusal([&] { keep.read(ctx); }), Contains("read: ") && Contains("plan again"));
  CHECK(said(ctx) == "");
  CHECK(it.untouched());
  it.plan(ctx, keep);
  it.compact(ctx, keep, done);
  CHECK(refusal([&] { done.wait(ctx); }) == "");
}

TEST_CASE("the context tells of what nobody else has told, once") {
  layers const model(1);
  auto& [all, keeps, tickets] = const_cast<layers&>(model);
  cuda::device ctx(default_stream());
  SECTION("one keep set and one ticket for all layers") {
    for (std::size_t l = 0; l < 3; ++l) all[l].plan(ctx, keeps[0]), all[l].compact(ctx, keeps[0], tickets[0]);
    CHECK(refusal([&] { tickets[0].wait(ctx); }) == "");
    CHECK(all[1].untouched());
    CHECK_FALSE(all[0].untouched());
    CHECK_THAT(said(ctx), Contains("head 1 in layer 1 is NaN"));
    CHECK(said(ctx) == "");
  }
  SECTION("two refusals, one of them told") {
    layer const wrong_too(2, true);
    all[1].plan(ctx, keeps[1]);
    wrong_too.plan(ctx, keeps[2]);
    CHECK_THAT(refusal([&] { keeps[1].read(ctx); }), Contains("in layer 1"));
    CHECK_THAT(said(ctx), Contains("plan: the score of"));
    CHECK(said(ctx) == "");
    CHECK_THAT(refusal([&] { keeps[2].read(ctx); }), Contains("in layer 2"));
  }
  SECTION("a slot is not written by a keep set whose refusal has been told") {
    all[1].plan(ctx, keeps[1]);
    CHECK_FALSE(refusal([&] { keeps[1].read(ctx); }).empty());
    CHECK(said(ctx) == "");
    on_device<std::int32_t> const slots(std::vector<std::int32_t>(4, 77));
    replace(ctx, all[1].there->view, keeps[1], slots.data());
    CHECK_THAT(said(ctx), Contains("in layer 1"));
    CHECK(slots.read() == std::vector<std::int32_t>(4, 77));
  }
  SECTION("a refusal of its own is not hidden by one that another context has told") {
    cuda::device other(default_stream());
    all[1].plan(other, keeps[1]);
    CHECK_FALSE(refusal([&] { keeps[1].read(ctx); }).empty());
    all[1].observe(ctx);
    CHECK_THAT(said(ctx), Contains("observe: the score of"));
    CHECK(said(ctx) == "");
    CHECK_THAT(said(other), Contains("plan: the score of"));
  }
  SECTION("an empty batch with a fresh keep set and ticket") {
    auto none = all[0].there->view;
    none.pages.sequences = 0;
    kvevict::plan(ctx, presets::streaming_llm(), kvevict::contents(none), all[0].ask(), keeps[0]);
    compact(ctx, none, keeps[0], kvevict::compaction::stable, tickets[0]);
    CHECK(keeps[0].read(ctx).rows() == 0);
    CHECK(refusal([&] { tickets[0].wait(ctx); }) == "");
  }
  SECTION("kernels outside of calls go on when a ticket has told") {
    all[1].plan(ctx, keeps[1]);
    CHECK_FALSE(refusal([&] { keeps[1].read(ctx); }).empty());
    on_device<std::uint32_t> const ran(std::vector<std::uint32_t>{0});
    ctx.launch({1}, {32}, 0, counter{ctx.watch(), ran.data()});
    CHECK(ran.read()[0] == 32);
  }
  SECTION("scores tell themselves") {
    std::vector<float> values;
    all[1].plan(ctx, keeps[1]);
    kvevict::scores(ctx, snapkv, kvevict::prompt(all[0].there->view, all[0].queries), all[0].ask(), values);
    CHECK(values.size() == 140);
    CHECK_THAT(refusal([&] {
                 kvevict::scores(ctx, snapkv, kvevict::prompt(all[1].there->view, all[1].queries), all[1].ask(),
                                 values);
               }),
               Contains("in layer 1"));
    CHECK(values.size() == 140);
    CHECK_THAT(said(ctx), Contains("in layer 1"));  // the plan's
    CHECK(said(ctx) == "");
  }
}

TEST_CASE("a state that lacks a step is neither read nor added to before that has been told") {
  layer const it(1, true), fine(0);
  cuda::device ctx(default_stream());
  cuda::keep_set keep;
  it.observe(ctx), fine.observe(ctx);
  it.observe(ctx);
  it.plan_from_state(ctx, keep);
  CHECK_THAT(refusal([&] { keep.read(ctx); }), Contains("observe: the score of") && Contains("in layer 1"));
  CHECK(it.untouched());
  fine.plan_from_state(ctx, keep);
  CHECK(keep.read(ctx).kept() == 80);
  it.plan_from_state(ctx, keep);  // the engine has been told: it may go on with what is there
  CHECK(keep.read(ctx).kept() == 80);
  CHECK(said(ctx) == "");
  it.observe(ctx);
  CHECK_THAT(said(ctx), Contains("observe: the score of"));
  it.plan_from_state(ctx, keep);
  CHECK(keep.read(ctx).kept() == 80);
}

TEST_CASE("a ticket that is used again, an empty batch, and results without a call are not refused") {
  layer const wrong(1, true), fine(0);
  cuda::device ctx(default_stream());
  cuda::keep_set keep;
  cuda::compacted<std::int32_t> done;
  wrong.plan(ctx, keep), wrong.compact(ctx, keep, done);
  CHECK_FALSE(refusal([&] { done.wait(ctx); }).empty());
  auto none = wrong.there->view;
  none.pages.sequences = 0;
  kvevict::plan(ctx, presets::streaming_llm(), kvevict::contents(none), wrong.ask(), keep);
  CHECK(keep.read(ctx).rows() == 0);
  compact(ctx, none, keep, kvevict::compaction::stable, done);
  CHECK(refusal([&] { done.wait(ctx); }) == "");
  CHECK(done.lengths().size == 0);
  CHECK(cuda::keep_set().read(ctx).rows() == 0);
  keep.assign(ctx, kvevict::keep_set{2, 2, {}, {0, 0, 0, 0, 0}, {40, 40, 30, 30}});
  fine.compact(ctx, keep, done);
  CHECK(refusal([&] { done.wait(ctx); }) == "");
  CHECK(done.length(1, 1) == 0);
  CHECK(said(ctx) == "");
}

}  // namespace calls_test
