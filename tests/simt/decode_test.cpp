// SPDX-License-Identifier: Apache-2.0
// Decoding on a device: after every step the host's state and keep sets, whichever way the host applied the last one;
// scratch is counted.
#include <kvevict/cuda.cuh>

#include "simt/device_cache.hpp"
#include "support/catch.hpp"
#include "support/decoder.hpp"
#include "support/shared_prefix.hpp"

namespace decode_test {

using namespace simt_test;
using namespace support;
namespace cuda = kvevict::cuda;

namespace {

constexpr std::int32_t budget_tokens = 16;

/// The device's observe() of the rows [from, to) on a copy of the cache as it was before the host's, and what it plans
/// then.
template <class Cache, class Policy> class shadow {
 public:
  using entry = typename std::decay_t<decltype(std::declval<Cache>().view)>::table_entry;

  shadow(Cache& cache, Policy policy, attention rows, form as)
      : cache_(cache), policy_(policy), copy_(cache), ctx_(default_stream()) {
    kvevict::budget const ask{.tokens_per_head = budget_tokens};
    auto const& view = copy_.view;
    if (as == form::weights)
      kvevict::observe(ctx_, policy, kvevict::step(view, on_device_rows(memory_, rows.rows(), view.sequences())), ask);
    else {
      auto const e = kvevict::step(view, on_device_rows(memory_, rows.queries(), view.sequences()));
      if (as == form::queries)
        kvevict::observe(ctx_, policy, e, ask);
      else
        kvevict::observe(ctx_, policy, e.with_lse(memory_.put(rows.lse), rows.lse_stride(), 1), ask);
    }
    kvevict::plan(ctx_, policy, kvevict::remembered(view), ask, keep_);
  }

  /// After the host has observed: every float of the state, and the keep set.
  void compare(kvevict::keep_set const& want) {
    auto const got = keep_.read(ctx_);
    auto const mine = cache_.snapshot();
    std::vector<float> sides[2];
    cache_.restore(copy_.snapshot());
    for (int side = 0; side < 2; ++side, cache_.restore(mine))
      for (int b = 0; b < cache_.view.sequences(); ++b)
        for (int h = 0; h < cache_.view.heads(); ++h) {
          auto const row = cache_.read(kvevict::role::state, b, h);
          sides[side].insert(sides[side].end(), row.begin(), row.end());
        }
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < sides[0].size(); ++i)
      wrong += !(std::abs(sides[0][i] - sides[1][i]) <= 1e-5f * std::abs(sides[1][i]) + 1e-6f);
    CHECK(wrong == 0);
    CHECK(got.tokens == want.tokens);
    CHECK(got.row_begin == want.row_begin);
  }

 private:
  Cache& cache_;
  Policy policy_;
  device_cache<entry> copy_;
  device_memory memory_;
  cuda::device ctx_;
  cuda::keep_set keep_;
};

template <class Policy> void decode(Policy policy, decode_setting const& s, std::uint64_t schedule) {
  scheduled const order(schedule);
  batch const in = random_batch(90 + schedule, {.Hq = 4, .H = 2, .D = 8, .N = {20, 20}, .future = 8}, 1.0);
  with_decoder(policy, in, s, [&](auto& engine, auto& cache) {
    CAPTURE(cache.name(), schedule, static_cast<int>(s.as), static_cast<int>(s.how));
    std::size_t const N = in.N[0];
    for (std::size_t step = 0; step <= in.future; ++step) {
      std::size_t const from = step == 0 ? 0 : N + step - 1, to = N + step;
      if (step > 0) engine.append(from);
      CAPTURE(step);
      shadow<std::decay_t<decltype(cache)>, Policy> device(
          cache, policy,
          rows_of(in, engine.positions(), std::vector<std::size_t>(in.B(), from), std::vector<std::size_t>(in.B(), to)),
          s.as);
      engine.observe(from, to);
      auto const keep = engine.plan();
      device.compare(keep);
      if (engine.due(s.slack)) engine.apply(keep);
    }
  });
}

}  // namespace

TEST_CASE("observe on a device observes what the host observes") {
  std::vector<decode_setting> const settings{
      {budget_tokens, 0, form::queries, applying::stable},
      {budget_tokens, 3, form::lse, applying::stable, layouts::layout::pointers},
      {budget_tokens, 0, form::weights, applying::fill_holes},
      {budget_tokens, 0, form::lse, applying::in_place, layouts::layout::x_packed},
      {budget_tokens, 2, form::queries, applying::fill_holes},
  };
  std::uint64_t schedule = 0;
  for (auto const& s : settings) {
    decode(kvevict::presets::h2o({.recent = 6}), s, schedule);
    if (s.how == applying::stable) decode(kvevict::presets::ahakv({.recent = 8}), s, schedule);
    ++schedule;
  }
}

TEST_CASE(
    "scratch on a device is what counting says, a caller's buffer will do, and the second call takes nothing more") {
  batch const in = random_batch(95, {.Hq = 4, .H = 2, .D = 16, .N = {60, 33}});
  auto const policy = kvevict::presets::ada_snapkv({.window = 8, .pool = 5});
  with_cache(in, [&](auto& cache) {
    using entry = typename std::decay_t<decltype(cache.view)>::table_entry;
    device_cache<entry> there(cache);
    device_memory memory;
    auto const rows = all_rows(in);
    auto const e = kvevict::prompt(there.view, on_device_rows(memory, rows.queries(), 2));
    kvevict::budget const ask{.tokens_per_head = 24};
    cuda::stream const s = default_stream();
    auto const plan = [&](cuda::device& ctx, cuda::keep_set& out) { kvevict::plan(ctx, policy, e, ask, out); };
    auto const dry = cuda::device::try_out(s, [&](cuda::device& ctx) {
      cuda::keep_set out;
      plan(ctx, out);
    });
    std::size_t const bytes = dry.scratch_bytes;
    REQUIRE(bytes > 0);
    CHECK(dry.count(cuda::dry_run::kind::launch) < 40);
    cuda::device own(s);
    cuda::keep_set keep, again;
    plan(own, keep);
    CHECK(own.scratch().high_water() == bytes);
    std::size_t const held = own.scratch().capacity();
    auto const first = keep.read(own);
    plan(own, keep);
    CHECK(keep.read(own).tokens == first.tokens);
    CHECK(own.scratch().capacity() == held);
    void* const buffer = cuda::allocate(s, bytes);
    {
      cuda::device lent(s, buffer, bytes);
      lent.reserve(bytes);
      for (int i = 0; i < 3; ++i) plan(lent, again);
      CHECK(again.read(lent).tokens == first.tokens);
    }
    {
      cuda::device small(s, buffer, bytes - 64);
      CHECK_THROWS_AS(plan(small, again), kvevict::contract_violation);
    }
    cuda::synchronize(s);
    cuda::release(s, buffer);
  });
}

TEST_CASE("observe on a device does not write a prefix that sequences share") {
  auto const check = [](auto const& policy) {
    shared_prefix p(kvevict::state_floats(policy));
    device_memory memory;
    cuda::device ctx(default_stream());
    attention const some = last_rows(p.in, 3);
    for (auto* cache : {&p.apart, &p.together}) {
      device_cache<std::int32_t> there(*cache);
      kvevict::observe(ctx, policy, kvevict::step(there.view, on_device_rows(memory, some.queries(), 2)),
                       {.tokens_per_head = budget_tokens});
      ctx.wait();
      cache->restore(there.snapshot());
    }
    p.compare();
  };
  check(kvevict::presets::h2o());
  check(kvevict::presets::ahakv({.recent = 8}));
}

TEST_CASE("a prompt is observed in at most ten launches, however many rows the ring has") {
  batch const in = random_batch(96, {.Hq = 4, .H = 2, .D = 16, .N = {60, 60}});
  for (std::int32_t const recent : {8, 32}) {
    auto const policy = kvevict::presets::ahakv({.recent = recent});
    auto shape = cache_shape_of(in);
    shape.state_floats = kvevict::state_floats(policy);
    with_cache(layouts::layout::head_pages, shape, in, [&](auto& cache) {
      using entry = typename std::decay_t<decltype(cache.view)>::table_entry;
      device_cache<entry> there(cache);
      device_memory memory;
      auto const rows = all_rows(in);
      auto const launches = [&](auto const& given) {
        auto const e = kvevict::prompt(there.view, on_device_rows(memory, given, 2));
        return cuda::device::try_out(
                   default_stream(),
                   [&](cuda::device& ctx) { kvevict::observe(ctx, policy, e, {.tokens_per_head = 24}); })
            .count(cuda::dry_run::kind::launch);
      };
      CHECK(launches(rows.queries()) <= 10);
      CHECK(launches(rows.rows()) <= 10);
    });
  }
}

}  // namespace decode_test
