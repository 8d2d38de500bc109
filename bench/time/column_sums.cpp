// SPDX-License-Identifier: Apache-2.0
// Attention that every token receives from all rows: ours, and the plainest loops.
#include <kvevict/kernels/column_sums.hpp>

#include "support/input.hpp"

namespace {

using namespace bench;

double flop(shape const& s, bool lse) { return (lse ? 1.0 : 2.0) * s.Hq * double(s.N) * s.N * s.D; }

/// With an LSE: some of the columns, in double precision.
bool some_right(input const& in, shape const& s) {
  auto const keys = in.keys(0);
  for (std::int32_t j = 0; j < s.N; j += s.N / 32 + 1) {
    double const sum = weights_of(keys.data() + std::ptrdiff_t{j} * s.D, in, s, 0, j, s.N);
    if (!(std::abs(double{in.scores(0)[j]} - sum) <= 1e-5 * sum)) return false;
  }
  return true;
}

void ours(benchmark::State& state, shape s, int threads, bool lse) {
  context& c = on(threads);
  input& in = once(s.name(), [&] { return input(s, s.N); });
  auto const q = lse ? in.queries_with_lse() : in.queries();
  auto const run = [&] { kernels::column_sums(c.ctx, in.view(), q, kvevict::group_reduce::mean, in.out()); };
  run();
  auto const right = [&] {
    if (lse) return some_right(in, s);
    return close(in.scores(0), naive_attention<double>(in.keys(0), in, s, s.N, 0), 1);
  };
  if (!once(s.name() + host_name(threads) + std::to_string(lse), right)) return state.SkipWithError("wrong sums");
  for (auto _ : state) run();
  count(state, c, s.N, flop(s, lse), s.key_bytes(), bound::arithmetic);
}

void naive(benchmark::State& state, shape s) {
  input& in = once(s.name(), [&] { return input(s, s.N); });
  auto const& keys = once(s.name(), [&] { return in.keys(0); });
  for (auto _ : state) benchmark::DoNotOptimize(naive_attention<float>(keys, in, s, s.N, 0));
  count(state, on(1), s.N, flop(s, false) / 2, s.key_bytes(), bound::arithmetic);
}

}  // namespace

int main(int argc, char** argv) {
  for (std::int32_t const N : {1024, 2048, 4096, 8192})
    for (int const threads : {1, 2})
      for (bool const lse : {false, true}) {
        if (N == 8192 && !lse) continue;
        shape const s{4, 1, N, 128, 0, kvevict::dtype::f32};
        add("column_sums/" + std::string(lse ? "lse" : "no_lse") + "/" + host_name(threads) + "/" + s.name(), threads,
            [=](benchmark::State& state) { ours(state, s, threads, lse); });
      }
  shape const s{4, 1, 1024, 128, 0, kvevict::dtype::f32};
  add("column_sums/naive/host/" + s.name(), 1, [=](benchmark::State& state) { naive(state, s); });
  return run_added(argc, argv);
}
