// SPDX-License-Identifier: Apache-2.0
// Squared norms of all keys, whose roof is reading memory.
#include <kvevict/kernels/squared_norms.hpp>

#include "support/input.hpp"

namespace {

using namespace bench;

std::vector<double> naive_norms(std::vector<float> const& keys, shape const& s) {
  std::vector<double> out(std::size_t(s.N), 0.0);
  plain::squared_norms(keys.data(), s.N, s.D, out.data());
  return out;
}

void ours(benchmark::State& state, shape s, int threads) {
  context& c = on(threads);
  input& in = once(s.name(), [&] { return input(s, 1); });
  auto const run = [&] { kernels::squared_norms(c.ctx, in.view(), in.view().components[0], in.out()); };
  run();
  auto const right = [&] { return close(in.scores(0), naive_norms(in.keys(0), s), 1); };
  if (!once(s.name() + host_name(threads), right)) return state.SkipWithError("wrong norms");
  for (auto _ : state) run();
  count(state, c, s.N, 0, s.key_bytes(), bound::memory);
}

void naive(benchmark::State& state, shape s) {
  auto const& keys = once(s.name(), [&] { return input(s, 1).keys(0); });
  std::vector<float> out(std::size_t(s.N));
  for (auto _ : state)
    for (std::int32_t h = 0; h < s.H; ++h) {
      plain::squared_norms(keys.data(), s.N, s.D, out.data());
      benchmark::DoNotOptimize(out.data());
    }
  count(state, on(1), s.N, 0, s.key_bytes(), bound::memory);
}

}  // namespace

int main(int argc, char** argv) {
  using kvevict::dtype;
  for (int const threads : {1, 2})
    for (dtype const type : {dtype::f32, dtype::bf16}) {
      shape const s{8, 8, 32768, 128, 0, type};
      add("squared_norms/keys/" + host_name(threads) + "/" + s.name(), threads,
          [=](benchmark::State& state) { ours(state, s, threads); });
    }
  shape const s{8, 8, 32768, 128, 0, dtype::f32};
  add("squared_norms/naive/host/" + s.name(), 1, [=](benchmark::State& state) { naive(state, s); });
  return run_added(argc, argv);
}
