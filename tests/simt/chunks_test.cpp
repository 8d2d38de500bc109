// SPDX-License-Identifier: Apache-2.0
// select::chunks on a device: the host's tokens, by the host's text; cut scores; refusals in the host's words.
#include <kvevict/cuda.cuh>
#include <kvevict/kvevict.hpp>
#include <kvevict/select/chunks.hpp>

#include "simt/device_cache.hpp"
#include "support/catch.hpp"
#include "support/chunk_case.hpp"
#include "support/keep_sets.hpp"

namespace chunks_test {

using namespace simt_test;
using namespace support;
namespace cuda = kvevict::cuda;
namespace by = kvevict::select;

namespace {

kvevict::score_rows moved(device_memory& memory, chunk_case& c) {
  kvevict::score_rows s = c.view();
  s.rows = memory.put(c.rows), s.begin = memory.put(c.begin), s.values = memory.put(c.values);
  return s;
}

}  // namespace

TEST_CASE("a device keeps the chunks that the host keeps, and finds its cut scores") {
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    chunk_case c = random_chunks(seed), padded = random_chunks(seed, 92);
    scheduled const schedule(seed % 5);
    kvevict::host host;
    std::vector<float> want(c.rows.size(), -1.0f);
    kvevict::kernels::cut_scores(host, c.view(), want.data());
    device_memory memory;
    cuda::device ctx(default_stream());
    kvevict::score_rows const s = moved(memory, padded);
    on_device<float> const cuts(std::vector<float>(c.rows.size(), -1.0f));
    kvevict::kernels::cut_scores(ctx, s, cuts.data());
    ctx.wait();
    CHECK(cuts.read() == want);
    for (auto const& stage : {by::chunks{5}, by::chunks{12, 1}, by::chunks{10, 4}}) {
      kvevict::keep_set keep;
      stage(host, c.view(), keep);
      cuda::keep_set there;
      stage(ctx, s, there);
      CAPTURE(seed, stage.size, stage.peak);
      CHECK(there.read(ctx).tokens == keep.tokens);
    }
  }
}

TEST_CASE("plans of chunks on a device are the host's") {
  auto const policy = kvevict::presets::random({.seed = 3, .sinks = 2, .recent = 5});
  layouts::cache_shape shape;
  shape.lengths = {300, 9, 0, 41}, shape.heads = 2;
  for (layouts::layout const l : {layouts::layout::nhd, layouts::layout::pointers, layouts::layout::head_pages})
    layouts::with_layout(l, shape, [&](auto& cache) {
      using entry = typename std::decay_t<decltype(cache.view)>::table_entry;
      device_cache<entry> there(cache);
      kvevict::host host;
      cuda::device ctx(default_stream());
      auto const check = [&](auto const& p) {
        kvevict::budget const b{.tokens_per_head = 30};
        auto const want = plan(host, p, kvevict::contents(cache.view), b);
        auto const got = plan(ctx, p, kvevict::contents(there.view), b).read(ctx);
        CHECK((got.tokens == want.tokens && got.row_begin == want.row_begin));
      };
      check(policy.with(by::chunks{})), check(policy.with(by::chunks{10, 4}));
      check(policy.with(kvevict::heads::together{}).with(by::chunks{7}));
      auto const said = refusal([&] { plan(ctx, policy.with(by::chunks{4, 4}), kvevict::contents(there.view), {30}); });
      CHECK(said.find("select::chunks: chunks of 4 tokens, of which 4 stay") == 0);
    });
}

}  // namespace chunks_test
