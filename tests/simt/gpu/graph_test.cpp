// SPDX-License-Identifier: Apache-2.0
// On a GPU only: observe, plan and compact captured in one graph, replayed on other data. tests/run.sh --cuda builds
// it.
#include <kvevict/cuda.cuh>

#include "simt/device_cache.hpp"
#include "support/catch.hpp"
#include "support/decoder.hpp"

using namespace simt_test;
using namespace support;
namespace cuda = kvevict::cuda;

TEST_CASE("a captured graph of observe, plan and compact equals the calls") {
  auto const policy = kvevict::presets::h2o({.recent = 6});
  kvevict::budget const ask{.tokens_per_head = 16};
  auto const input = [](std::uint64_t seed) {
    return random_batch(seed, {.Hq = 4, .H = 2, .D = 8, .N = {40, 40}}, 1.0);
  };
  auto const fill_cache = [&](batch const& in, auto&& f) {
    auto shape = cache_shape_of(in);
    shape.state_floats = 1;
    with_cache(layouts::layout::head_pages, shape, in, f);
  };
  batch const first = input(1), second = input(2);
  fill_cache(first, [&](auto& cache) {
    using cache_type = std::decay_t<decltype(cache)>;
    if constexpr (!cache_type::of_pointers) {
      auto const rows = all_rows(first), other_rows = all_rows(second);
      device_cache<std::int32_t> captured(cache);
      auto const original = cache.snapshot();
      device_memory memory;
      auto const q = on_device_rows(memory, rows.queries(), 2);
      cuda::owned_stream own;
      cuda::stream const s = own;
      cuda::device ctx(s);
      cuda::keep_set keep;
      cuda::compacted<std::int32_t> done;
      auto const run = [&](auto const& view) {
        kvevict::observe(ctx, policy, kvevict::step(view, q), ask);
        kvevict::plan(ctx, policy, kvevict::remembered(view), ask, keep);
        compact(ctx, view, keep, kvevict::compaction::stable, done);
      };
      run(captured.view);  // sizes everything: nothing is allocated below
      ctx.wait();
      cudaGraph_t graph;
      cudaGraphExec_t executable;
      REQUIRE(cudaStreamBeginCapture(s.handle(), cudaStreamCaptureModeThreadLocal) == cudaSuccess);
      run(captured.view);
      REQUIRE(cudaStreamEndCapture(s.handle(), &graph) == cudaSuccess);
      REQUIRE(cudaGraphInstantiate(&executable, graph, 0) == cudaSuccess);
      for (bool const again : {false, true}) {
        fill(cache, again ? second : first);
        if (again)
          cuda::copy_to_device(s, const_cast<void*>(q.data), other_rows.q.data(), other_rows.q.size() * sizeof(float));
        for (std::size_t i = 0; i < cache.snapshot().size(); ++i)
          cuda::copy_to_device(s, captured.start(i), cache.buffer(i).data(), cache.buffer(i).size());
        cuda::synchronize(s);
        REQUIRE(cudaGraphLaunch(executable, s.handle()) == cudaSuccess);
        auto const got = keep.read(ctx);
        kvevict::host host;
        kvevict::observe(host, policy, kvevict::step(cache.view, (again ? other_rows : rows).queries()), ask);
        auto const want = kvevict::plan(host, policy, kvevict::remembered(cache.view), ask);
        CHECK(got.tokens == want.tokens);
        cache.restore(original);
      }
      cudaGraphExecDestroy(executable);
      cudaGraphDestroy(graph);
    }
  });
}
