// SPDX-License-Identifier: Apache-2.0
// observe on a device takes batches as schedulers have them: any number of rows of every sequence, none included.
#include <kvevict/cuda.cuh>

#include "simt/device_cache.hpp"
#include "support/mixed_batch.hpp"

namespace observe_batch_test {

using namespace simt_test;
using namespace support;
namespace cuda = kvevict::cuda;

namespace {

/// Announces `most` rows of a sequence, or as many as there are.
struct observes {
  std::int32_t most = 0;

  template <class Policy, class Cache>
  void operator()(Policy const& policy, Cache& cache, attention const& rows, form as) const {
    using entry = typename std::decay_t<decltype(cache.view)>::table_entry;
    device_cache<entry> there(cache);
    device_memory memory;
    cuda::device ctx(default_stream());
    kvevict::budget const ask{.tokens_per_head = 16};
    auto const put = [&](auto const& x) {
      auto out = on_device_rows(memory, x, cache.view.sequences());
      out.most_rows = std::max(out.most_rows, most);
      return out;
    };
    if (as == form::weights)
      kvevict::observe(ctx, policy, kvevict::step(there.view, put(rows.rows())), ask);
    else {
      auto const e = kvevict::step(there.view, put(rows.queries()));
      if (as == form::queries)
        kvevict::observe(ctx, policy, e, ask);
      else
        kvevict::observe(ctx, policy, e.with_lse(memory.put(rows.lse), rows.lse_stride(), 1), ask);
    }
    ctx.wait();
    cache.restore(there.snapshot());
  }
};

}  // namespace

TEST_CASE("observe on a device: each sequence of a mixed batch gets the state that it would get alone") {
  std::uint64_t seed = 410;
  for (mix const& m : mixes()) {
    mixed_batch const b(m, ++seed);
    auto const l = seed % 2 == 0 ? layouts::layout::nhd : layouts::layout::head_pages;
    scheduled const order(seed);
    together_as_alone(b, l, kvevict::presets::h2o(), observes{});
    together_as_alone(b, l, kvevict::presets::ahakv({.recent = 8}), observes{});
  }
}

TEST_CASE("observe on a device: no bit of a step depends on the chunk of another sequence, nor on what is announced") {
  // 600 rows of 2 query heads a KV head are more than are split, 1 200 tokens are more than a split
  mixed_batch const b({{1200, 600}, {1, 600}}, 430);
  auto const see = [&](std::int32_t most) {
    return [=](auto& cache, attention const& rows) {
      observes{most}(kvevict::presets::h2o(), cache, rows, form::queries);
    };
  };
  auto const l = layouts::layout::head_pages;
  states const together = states_after(b, l, 1, 0, 2, see(0)), alone = states_after(b, l, 1, 0, 1, see(0)),
               announced = states_after(b, l, 1, 0, 1, see(600)), chunk = states_after(b, l, 1, 1, 1, see(0));
  CHECK((together[0] == alone[0]));
  CHECK((announced[0] == alone[0]));
  CHECK((together[1] == chunk[0]));
}

TEST_CASE("observe on a device: what sequences of any kind are observed to together is what each of them is alone") {
  auto const see = [](auto const& policy, auto& cache, placed_rows const& rows, random_mix const& m,
                      std::size_t first) {
    using entry = typename std::decay_t<decltype(cache.view)>::table_entry;
    device_cache<entry> there(cache);
    device_memory memory;
    cuda::device ctx(default_stream());
    auto const put = [&](auto const& x) { return memory.put(x); };
    auto const observe = [&](auto const& of) {
      kvevict::observe(ctx, policy, kvevict::step(there.view, of).with_visibility(m.sight_of(first, put)),
                       {.tokens_per_head = 16});
    };
    if (m.as == form::weights)
      observe(rows.rows(put));
    else
      observe(m.as == form::lse ? rows.with_lse(put) : rows.queries(put));
    ctx.wait();
    cache.restore(there.snapshot());
  };
  for (std::uint64_t seed = 700; seed < 724; ++seed) {
    random_mix const m = random_mix::of(seed);
    scheduled const order(seed);
    if (seed % 2 == 0)
      lies_anywhere(m, kvevict::presets::h2o(), see);
    else
      lies_anywhere(m, kvevict::presets::ahakv({.recent = 5}), see);
  }
}

}  // namespace observe_batch_test
