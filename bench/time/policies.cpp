// SPDX-License-Identifier: Apache-2.0
// What a layer's eviction costs, per policy: plan() beside the attention of the same layer.
#include <kvevict/kvevict.hpp>

#include "support/layer.hpp"
#include "support/prefill.hpp"

namespace {

using namespace bench;

constexpr std::int32_t budget = 1024;

bool exact(kvevict::keep_set const& keep) {
  for (std::int64_t r = 0; r < keep.rows(); ++r)
    for (std::int64_t i = 1; i < keep.row(r).size; ++i)
      if (keep.row(r)[i - 1] >= keep.row(r)[i]) return false;
  return keep.kept() == std::int64_t{budget} * keep.heads;
}

template <class Policy>
void plan(benchmark::State& state, shape s, int threads, Policy policy, std::int32_t query_tokens) {
  context& c = on(threads);
  layer& l = *once(s.name() + std::to_string(query_tokens), [&] {
    auto made = std::make_unique<layer>(s, query_tokens);
    made->with_values("BNHD");
    return made;
  });
  kvevict::keep_set keep;
  auto const evidence = kvevict::prompt(l.view, l.in.queries());
  kvevict::plan(c.ctx, policy, evidence, {.tokens_per_head = budget}, keep);
  if (!exact(keep)) return state.SkipWithError("the budget is not kept");
  for (auto _ : state) kvevict::plan(c.ctx, policy, evidence, {.tokens_per_head = budget}, keep);
  count(state, c, s.N, 0, s.key_bytes(), bound::cache);
}

void attention(benchmark::State& state, shape s) {
  prefill_attention of_layer(s.Hq, s.H, s.D, s.N);
  for (auto _ : state) state.SetIterationTime(of_layer.measure());
}

template <class F> void for_each_policy(F&& f) {
  using namespace kvevict::presets;
  f("random", kvevict::presets::random());
  f("streaming_llm", streaming_llm());
  f("keydiff", keydiff());
  f("lagkv", lagkv());
  f("tova", tova());
  f("snapkv", snapkv());
  f("pyramidkv", pyramidkv());
  f("ada_snapkv", ada_snapkv());
  f("ada_pyramidkv", ada_pyramidkv());
  f("ahakv", ahakv());
}

}  // namespace

int main(int argc, char** argv) {
  for (std::int32_t const N : {4096, 32768}) {
    shape const s{32, 8, N, 128, 32, kvevict::dtype::f32};
    std::string tail = "/";
    tail.append(s.name()).append("/B:").append(std::to_string(budget));
    for (int const threads : {1, 2}) {
      std::string const context = std::string("/").append(host_name(threads));
      for_each_policy([&](std::string const& name, auto policy) {
        add("plan/" + name + context + tail, threads,
            [=](benchmark::State& state) { plan(state, s, threads, policy, s.W); });
      });
    }
    auto* h2o = benchmark::RegisterBenchmark(("plan/h2o/host_threads:2" + tail).c_str(), [=](benchmark::State& state) {
      plan(state, s, 2, kvevict::presets::h2o(), s.N);
    });
    h2o->Unit(benchmark::kMillisecond)->UseRealTime();
    if (N > 4096) h2o->Iterations(1)->Repetitions(1);
    benchmark::RegisterBenchmark(("attention/prefill_scaled/host" + tail).c_str(),
                                 [=](benchmark::State& state) { attention(state, s); })
        ->Unit(benchmark::kMillisecond)
        ->UseManualTime()
        ->Iterations(3);
  }
  return run_added(argc, argv);
}
