// SPDX-License-Identifier: Apache-2.0
// Nothing is allocated after the first call of a size: every allocation of the program is counted.
#include <kvevict/apply/compact.hpp>
#include <kvevict/kernels/host.hpp>
#include <kvevict/presets/ahakv.hpp>
#include <kvevict/presets/h2o.hpp>
#include <kvevict/threads.hpp>

#include "support/allocations.hpp"
#include "support/any_preset.hpp"
#include "support/catch.hpp"

namespace allocation_test {

using namespace support;

namespace {

template <class F> std::int64_t allocated_by(F f) {
  std::int64_t const before = allocations();
  f();
  return allocations() - before;
}

template <class F> void for_each_context(F f) {
  kvevict::threads pool(3);
  kvevict::host serial, threaded(pool.as_executor(0));
  f("serial", serial);
  f("threads(3)", threaded);
}

}  // namespace

TEST_CASE("laws: allocations are counted") {
  CHECK(allocated_by([] { delete new std::vector<int>(5); }) >= 1);
}

TEST_CASE("laws: plan and compact allocate nothing after the first call") {
  batch const in = random_batch(51, {.Hq = 6, .H = 2, .D = 16, .N = {200, 130, 7}});
  hand_in rows(in);
  for_each_context([&](char const* executor, kvevict::host& ctx) {
    for (form const as : {form::queries, form::lse, form::weights})
      for (any_preset const& p : presets())
        for (auto const mode : {kvevict::compaction::stable, kvevict::compaction::fill_holes})
          with_cache(in, [&](auto& cache) {
            CAPTURE(p.name, executor, static_cast<int>(as), static_cast<int>(mode), in.seed);
            rows.as = as;
            kvevict::budget const ask{.tokens_per_head = 40, .layer = 0, .layer_count = 2};
            any_view const view = cache.view;
            kvevict::keep_set keep;
            // moves nothing
            auto done = kvevict::compact(ctx, cache.view, p.plan(ctx, view, rows, {.tokens_per_head = 1 << 20}), mode);
            auto const once = [&] {
              p.plan_into(ctx, view, rows, ask, keep);
              kvevict::compact(ctx, cache.view, keep, mode, done);
            };
            auto const before = cache.snapshot();
            once();
            cache.restore(before);
            CHECK(allocated_by(once) == 0);
          });
  });
}

TEST_CASE("laws: with workspace_bytes reserved, not even the first plan takes memory for scratch") {
  batch const in = random_batch(53, {.Hq = 6, .H = 2, .D = 16, .N = {200, 130, 7}});
  hand_in rows(in);
  kvevict::threads pool(3);
  for (bool const threaded : {false, true})
    for (form const as : {form::queries, form::lse, form::weights})
      for (any_preset const& p : presets())
        with_cache(in, [&](auto& cache) {
          rows.as = as;
          kvevict::host ctx = threaded ? kvevict::host(pool.as_executor(0)) : kvevict::host();
          auto const& v = cache.view;
          std::int64_t const entries = v.pages.rows() * std::max(v.pages.columns, 256),
                             pages = v.components[0].rows.page_count;
          std::int64_t const promised = p.workspace(ctx, {3, 6, 2, 16, 200, entries, pages});
          CAPTURE(p.name, threaded, static_cast<int>(as), in.seed, promised);
          ctx.reserve(static_cast<std::size_t>(promised));
          kvevict::budget const ask{.tokens_per_head = 40, .layer = 0, .layer_count = 2};
          kvevict::keep_set keep;
          p.plan_into(ctx, cache.view, rows, ask, keep);
          auto const used = static_cast<std::int64_t>(ctx.scratch().high_water());
          CHECK(used <= promised);
          CHECK(ctx.scratch().capacity() == static_cast<std::size_t>(promised));
          CHECK(promised < 40 * used + (1 << 20));  // a promise, not a guess
        });
}

TEST_CASE("laws: with workspace_bytes reserved, not even the first observe of a prompt takes memory for scratch") {
  batch const in = random_batch(54, {.Hq = 6, .H = 2, .D = 16, .N = {200, 200}});
  attention const rows = all_rows(in);
  auto const check = [&](auto const& policy) {
    auto shape = cache_shape_of(in);
    shape.state_floats = kvevict::state_floats(policy);
    with_cache(layouts::layout::head_pages, shape, in, [&](auto& cache) {
      auto const& v = cache.view;
      for (form const as : {form::queries, form::lse, form::weights}) {
        kvevict::host ctx;
        std::int64_t const promised = kvevict::workspace_bytes(
            ctx, policy,
            {2, 6, 2, 16, 200, v.pages.rows() * std::max(v.pages.columns, 256), v.components[0].rows.page_count});
        ctx.reserve(static_cast<std::size_t>(promised));
        kvevict::budget const ask{.tokens_per_head = 40};
        if (as == form::weights)
          kvevict::observe(ctx, policy, kvevict::prompt(v, rows.rows()), ask);
        else if (as == form::queries)
          kvevict::observe(ctx, policy, kvevict::prompt(v, rows.queries()), ask);
        else
          kvevict::observe(ctx, policy,
                           kvevict::prompt(v, rows.queries()).with_lse(rows.lse.data(), rows.lse_stride(), 1), ask);
        CAPTURE(static_cast<int>(as), promised, ctx.scratch().high_water());
        CHECK(ctx.scratch().capacity() == static_cast<std::size_t>(promised));
      }
    });
  };
  check(kvevict::presets::h2o());
  check(kvevict::presets::ahakv({.recent = 32}));
}

TEST_CASE("laws: decoding allocates nothing after the first steps") {
  batch const in = random_batch(52, {.Hq = 4, .H = 2, .D = 16, .N = {48, 48}, .future = 1});
  for_each_context([&](char const* executor, kvevict::host& ctx) {
    auto const decode = [&](auto const& policy) {
      auto shape = cache_shape_of(in);
      shape.spare_tokens = 4;
      shape.state_floats = kvevict::state_floats(policy);
      layouts::with_layout(layouts::layout::head_pages, shape, [&](auto& cache) {
        for (auto& n : cache.lengths()) n += 4;
        cache.fill([](int, int, int, int d) { return d; }, [](int, int, int, int d) { return d; });
        for (auto& n : cache.lengths()) n -= 4;
        fill(cache, in);
        auto const prompt = all_rows(in);
        kvevict::budget const ask{.tokens_per_head = 40};
        kvevict::keep_set keep;
        auto done = kvevict::compact(
            ctx, cache.view,
            kvevict::plan(ctx, policy, kvevict::prompt(cache.view, prompt.queries()), {.tokens_per_head = 48}));
        kvevict::observe(ctx, policy, kvevict::prompt(cache.view, prompt.queries()), ask);
        auto const step = [&](std::int32_t i) {
          std::int32_t const begin[] = {0, 1, 2}, positions[] = {i, i};
          auto one = prompt.queries();  // any queries will do
          one.row_begin = begin, one.positions = positions;
          for (auto& n : cache.lengths()) ++n;
          for (auto what : {kvevict::role::k, kvevict::role::v})
            for (int b = 0; b < 2; ++b)
              for (int h = 0; h < 2; ++h) cache.set(*cache.view.find(what), b, h, cache.view.length(b, h) - 1, 0, 1.0f);
          for (int b = 0; b < 2; ++b)
            for (int h = 0; h < 2; ++h)
              cache.set(*cache.view.find(kvevict::role::position), b, h, cache.view.length(b, h) - 1, 0,
                        static_cast<float>(i));
          kvevict::observe(ctx, policy, kvevict::step(cache.view, one), ask);
          kvevict::plan(ctx, policy, kvevict::remembered(cache.view), ask, keep);
          kvevict::compact(ctx, cache.view, keep, kvevict::compaction::stable, done);
          std::copy(done.lengths().begin(), done.lengths().end(), cache.lengths().begin());
        };
        step(48), step(49);
        for (std::int32_t i = 50; i < 60; ++i) {
          CAPTURE(executor, i);
          CHECK(allocated_by([&] { step(i); }) == 0);
        }
      });
    };
    decode(kvevict::presets::h2o());
    decode(kvevict::presets::ahakv({.recent = 8}));
  });
}

}  // namespace allocation_test
