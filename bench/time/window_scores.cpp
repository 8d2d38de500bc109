// SPDX-License-Identifier: Apache-2.0
// Attention of the last W rows to every token: ours, the plainest loops, and plain Eigen.
#include <kvevict/kernels/window_scores.hpp>

#include "support/input.hpp"

namespace {

using namespace bench;

void ours(benchmark::State& state, shape s, int threads, bool lse) {
  context& c = on(threads);
  input in(s, s.W);
  kvevict::window_options o;
  o.rows = s.W;
  auto const q = lse ? in.queries_with_lse() : in.queries();
  kernels::window_scores(c.ctx, in.view(), q, o, in.out());
  if (!close(in.scores(0), naive_attention<double>(in.keys(0), in, s, s.W, 0, lse ? cheap_lse : 0), 1.0 / s.W))
    return state.SkipWithError("wrong scores");
  for (auto _ : state) kernels::window_scores(c.ctx, in.view(), q, o, in.out());
  count(state, c, s.N, 2.0 * s.Hq * s.W * s.N * s.D, s.key_bytes(), bound::arithmetic);
}

void naive(benchmark::State& state, shape s) {
  input in(s, s.W);
  auto const keys = in.keys(0);
  for (auto _ : state)
    for (std::int32_t h = 0; h < s.H; ++h) benchmark::DoNotOptimize(naive_attention<float>(keys, in, s, s.W, h));
  count(state, on(1), s.N, 2.0 * s.Hq * s.W * s.N * s.D, s.key_bytes(), bound::arithmetic);
}

void eigen(benchmark::State& state, shape s) {
  input in(s, s.W);
  std::int32_t const G = s.Hq / s.H;
  std::vector<std::vector<float>> keys;
  for (std::int32_t h = 0; h < s.H; ++h) keys.push_back(in.keys(h));
  plain::eigen_attention attention(s.N, s.D, s.W, G);
  for (auto _ : state)
    for (std::int32_t h = 0; h < s.H; ++h) {
      auto const query = [&](std::int32_t i, std::int32_t g) { return in.query(i, h * G + g); };
      benchmark::DoNotOptimize(attention(keys[std::size_t(h)].data(), query).data());
    }
  count(state, on(1), s.N, 2.0 * s.Hq * s.W * s.N * s.D, s.key_bytes(), bound::arithmetic);
}

}  // namespace

int main(int argc, char** argv) {
  using kvevict::dtype;
  for (std::int32_t const N : {4096, 32768})
    for (int const threads : {1, 2})
      for (dtype const type : {dtype::f32, dtype::bf16})
        for (bool const lse : {false, true}) {
          shape const s{32, 8, N, 128, 32, type};
          add("window_scores/" + std::string(lse ? "lse" : "no_lse") + "/" +
                  (threads == 1 ? "host" : "host_threads:2") + "/" + s.name(),
              threads, [=](benchmark::State& state) { ours(state, s, threads, lse); });
        }
  shape const small{32, 8, 4096, 128, 32, dtype::f32}, large{32, 8, 32768, 128, 32, dtype::f32};
  add("window_scores/naive/host/" + small.name(), 1, [=](benchmark::State& state) { naive(state, small); });
  for (shape const& s : {small, large})
    add("window_scores/eigen/host/" + s.name(), 1, [=](benchmark::State& state) { eigen(state, s); });
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
