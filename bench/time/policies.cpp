// SPDX-License-Identifier: Apache-2.0
// What a layer's eviction costs, per policy: plan() and compact() beside the attention of the same layer.
#include <kvevict/kvevict.hpp>

#include "support/input.hpp"
#include "support/prefill.hpp"

namespace {

using namespace bench;

constexpr std::int32_t budget = 1024;

/// The keys of `input` with values in pages of the same shape.
struct layer {
  explicit layer(shape s, std::int32_t query_tokens)
      : in(s, query_tokens), values(std::size_t(s.N) * std::size_t(s.H * s.D)) {
    std::minstd_rand random(2);
    for (float& x : values) x = static_cast<float>(random()) / 1e9f - 1;
    kvevict::component v = in.view().components[0];
    v.what = kvevict::role::v;
    v.rows.base = reinterpret_cast<std::byte*>(values.data());
    view = in.view().with(v);
  }
  input in;
  std::vector<float> values;
  kvevict::layer_view<> view;
};

bool exact(kvevict::keep_set const& keep) {
  for (std::int64_t r = 0; r < keep.rows(); ++r)
    for (std::int64_t i = 1; i < keep.row(r).size; ++i)
      if (keep.row(r)[i - 1] >= keep.row(r)[i]) return false;
  return keep.kept() == std::int64_t{budget} * keep.heads;
}

template <class Policy>
void plan(benchmark::State& state, shape s, int threads, Policy policy, std::int32_t query_tokens) {
  context& c = on(threads);
  layer l(s, query_tokens);
  kvevict::keep_set keep;
  auto const evidence = kvevict::prompt(l.view, l.in.queries());
  kvevict::plan(c.ctx, policy, evidence, {.tokens_per_head = budget}, keep);
  if (!exact(keep)) return state.SkipWithError("the budget is not kept");
  for (auto _ : state) kvevict::plan(c.ctx, policy, evidence, {.tokens_per_head = budget}, keep);
  count(state, c, s.N, 0, s.key_bytes(), bound::cache);
}

/// Every row holds its kept tokens, each with the bytes that it had in `before`.
bool moved(layer const& now, layer const& before, kvevict::keep_set const& keep, kvevict::move_plan const& moves) {
  for (std::int64_t r = 0; r < keep.rows(); ++r) {
    std::vector<std::int32_t> token(std::size_t(keep.lengths[std::size_t(r)]));
    std::iota(token.begin(), token.end(), 0);
    for (auto i = std::size_t(moves.row_begin[std::size_t(r)]); i < std::size_t(moves.row_begin[std::size_t(r) + 1]);
         ++i)
      token[std::size_t(moves.destinations[i])] = moves.sources[i];
    token.resize(std::size_t(keep.row(r).size));
    for (std::size_t i = 0; i < token.size(); ++i)
      for (std::size_t c = 0; c < 2; ++c) {
        auto const at = [&](layer const& l, std::int64_t t) {
          return l.view.row(l.view.components[c], 0, std::int32_t(r), t);
        };
        if (std::memcmp(at(now, std::int64_t(i)), at(before, token[i]),
                        std::size_t(now.view.components[c].rows.run_bytes)) != 0)
          return false;
      }
    std::sort(token.begin(), token.end());
    if (!std::equal(token.begin(), token.end(), keep.row(r).begin(), keep.row(r).end())) return false;
  }
  return true;
}

/// A new copy of the cache is compacted every time; the copy is not timed.
void compact(benchmark::State& state, shape s, int threads, kvevict::compaction mode) {
  context& c = on(threads);
  layer l(s, s.W);
  auto const* keys = reinterpret_cast<float const*>(l.view.components[0].rows.base);
  std::vector<float> const whole_k(keys, keys + l.values.size()), whole_v = l.values;
  std::int32_t const kept = s.N / 5;
  auto const keep = kvevict::plan(c.ctx, kvevict::presets::snapkv({.window = s.W}),
                                  kvevict::prompt(l.view, l.in.queries()), {.tokens_per_head = kept});
  kvevict::compacted<std::int32_t> out;
  kvevict::compact(c.ctx, l.view, keep, mode, out);
  if (!moved(l, layer(s, s.W), keep, out.moves())) return state.SkipWithError("a row is not where it should be");
  for (auto _ : state) {
    state.PauseTiming();
    std::copy(whole_k.begin(), whole_k.end(), reinterpret_cast<float*>(l.view.components[0].rows.base));
    l.values = whole_v;
    state.ResumeTiming();
    kvevict::compact(c.ctx, l.view, keep, mode, out);
  }
  double const bytes = 2.0 * double(out.bytes_moved());
  count(state, c, s.N, 0, bytes, bound::cache);
  state.counters["roof"] = benchmark::Counter(bytes / c.top.copy, benchmark::Counter::kIsIterationInvariantRate);
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
      std::string const context = threads == 1 ? "/host" : "/host_threads:2";
      for_each_policy([&](std::string const& name, auto policy) {
        add("plan/" + name + context + tail, threads,
            [=](benchmark::State& state) { plan(state, s, threads, policy, s.W); });
      });
      add("compact/stable" + context + tail, threads,
          [=](benchmark::State& state) { compact(state, s, threads, kvevict::compaction::stable); });
      add("compact/fill_holes" + context + tail, threads,
          [=](benchmark::State& state) { compact(state, s, threads, kvevict::compaction::fill_holes); });
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
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
