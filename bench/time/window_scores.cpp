// SPDX-License-Identifier: Apache-2.0
// Attention of the last W rows to every token, in pages and contiguous: ours, the plainest loops, and plain Eigen.
#include <kvevict/kernels/window_scores.hpp>

#include "support/input.hpp"

namespace {

using namespace bench;

enum class rows { no_lse, lse, step_gain };
constexpr char const* names[] = {"no_lse", "lse", "step_gain"};

void ours(benchmark::State& state, shape s, int threads, rows which) {
  context& c = on(threads);
  input& in = once(s.name(), [&] { return input(s, s.W); });
  kvevict::window_options o;
  o.rows = s.W;
  if (which == rows::step_gain) o.weights = kvevict::weighting::step_gain;
  auto const q = which == rows::lse ? in.queries_with_lse() : in.queries();
  auto const run = [&] { kernels::window_scores(c.ctx, in.view(), q, o, in.out()); };
  run();
  auto const right = [&] {
    auto const want = naive_attention<double>(in.keys(0), in, s, s.W, 0, which == rows::lse ? cheap_lse : 0,
                                              which == rows::step_gain ? in.budget : 0);
    double const gain = 5;  // on logits and their errors, at most
    return close(in.scores(0), want, 1.0 / s.W, which == rows::step_gain ? gain * 1e-5 : 1e-5);
  };
  if (!once(s.name() + host_name(threads) + names[int(which)], right)) return state.SkipWithError("wrong scores");
  for (auto _ : state) run();
  count(state, c, s.N, 2.0 * s.Hq * s.W * s.N * s.D, s.key_bytes(), bound::arithmetic);
}

void naive(benchmark::State& state, shape s) {
  input& in = once(s.name(), [&] { return input(s, s.W); });
  auto const& keys = once(s.name(), [&] { return in.keys(0); });
  for (auto _ : state)
    for (std::int32_t h = 0; h < s.H; ++h) benchmark::DoNotOptimize(naive_attention<float>(keys, in, s, s.W, h));
  count(state, on(1), s.N, 2.0 * s.Hq * s.W * s.N * s.D, s.key_bytes(), bound::arithmetic);
}

void eigen(benchmark::State& state, shape s) {
  input& in = once(s.name(), [&] { return input(s, s.W); });
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
      for (dtype const type : {dtype::f32, dtype::bf16, dtype::f16})
        for (bool const contiguous : {false, true})
          for (rows const which : {rows::no_lse, rows::lse, rows::step_gain}) {
            shape const s{32, 8, N, 128, 32, type, contiguous};
            add("window_scores/" + std::string(names[int(which)]) + "/" + host_name(threads) + "/" + s.name(), threads,
                [=](benchmark::State& state) { ours(state, s, threads, which); });
          }
  shape const small{32, 8, 4096, 128, 32, dtype::f32}, large{32, 8, 32768, 128, 32, dtype::f32};
  add("window_scores/naive/host/" + small.name(), 1, [=](benchmark::State& state) { naive(state, small); });
  for (shape const& s : {small, large})
    add("window_scores/eigen/host/" + s.name(), 1, [=](benchmark::State& state) { eigen(state, s); });
  return run_added(argc, argv);
}
