// SPDX-License-Identifier: Apache-2.0
// Key diversity while decoding on a device: after every step the host's scores and sums, however tokens went.
#include <kvevict/cuda.cuh>

#include "simt/device_cache.hpp"
#include "support/catch.hpp"
#include "support/decoder.hpp"

namespace running_diversity_test {

using namespace simt_test;
using namespace support;
namespace cuda = kvevict::cuda;
using kvevict::score::keys;
using kvevict::score::running_diversity;

namespace {

constexpr std::size_t D = 8;

auto policy_of(float* sums, std::int32_t refresh) {
  return kvevict::presets::distinct_keys({.sinks = 2, .keys = keys::cached})
      .with(running_diversity{sums, keys::cached, refresh})
      .with(kvevict::heads::uniform{});
}

double worst(std::vector<float> const& a, std::vector<float> const& b) {
  REQUIRE(a.size() == b.size());
  double out = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    out = std::max(out, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  return out;
}

template <class Cache> std::vector<float> states(Cache const& cache) {
  std::vector<float> out;
  for (int b = 0; b < cache.view.sequences(); ++b)
    for (int h = 0; h < cache.view.heads(); ++h) {
      auto const row = cache.read(kvevict::role::state, b, h);
      out.insert(out.end(), row.begin(), row.end());
    }
  return out;
}

}  // namespace

TEST_CASE("a device keeps the scores and sums of key diversity while decoding as the host does") {
  batch const in = random_batch(64, {.Hq = 4, .H = 2, .D = D, .N = {20, 20}, .future = 9});
  for (std::int32_t const refresh : {0, 4})
    for (applying const how : {applying::stable, applying::in_place}) {
      layouts::cache_shape shape = cache_shape_of(in);
      shape.state_floats = 1;
      layouts::with_layout(layouts::layout::head_pages, shape, [&](auto& cache) {
        using entry = typename std::decay_t<decltype(cache.view)>::table_entry;
        fill(cache, in);
        std::vector<float> sums(2 * 2 * D, 7.0f);
        decoder run(cache, policy_of(sums.data(), refresh), in, {.budget = 16, .slack = 0, .how = how});
        for (std::size_t step = 0; step <= in.future; ++step) {
          CAPTURE(refresh, static_cast<int>(how), step);
          std::size_t const from = step == 0 ? 0 : 19 + step, to = 20 + step;
          if (step > 0) run.append(from);
          attention const rows =
              rows_of(in, run.positions(), std::vector<std::size_t>(2, from), std::vector<std::size_t>(2, to));
          device_cache<entry> const there(cache);
          on_device<float> const sums_there(sums);
          device_memory memory;
          cuda::device ctx(default_stream());
          kvevict::observe(ctx, policy_of(sums_there.data(), refresh),
                           kvevict::step(there.view, on_device_rows(memory, rows.queries(), 2)),
                           {.tokens_per_head = 16});
          ctx.wait();
          run.observe(from, to);
          CHECK(worst(sums_there.read(), sums) < 1e-5);
          auto const mine = cache.snapshot();
          auto const want = states(cache);
          cache.restore(there.snapshot());
          CHECK(worst(states(cache), want) < 2e-6);
          cache.restore(mine);
          if (run.due(0)) run.apply(run.plan());
        }
      });
    }
}

}  // namespace running_diversity_test
