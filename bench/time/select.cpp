// SPDX-License-Identifier: Apache-2.0
// Selection and Ada-KV's allocation: ours and std::nth_element; and selection of scores that may be hard for it.
#include <kvevict/heads/adaptive.hpp>
#include <kvevict/kernels/host.hpp>

#include "support/input.hpp"

namespace {

using namespace bench;

enum class order { random, ascending, descending, equal, two_values, plateaus };
constexpr std::pair<order, char const*> hard[] = {{order::ascending, "ascending"},
                                                  {order::descending, "descending"},
                                                  {order::equal, "equal"},
                                                  {order::two_values, "two_values"},
                                                  {order::plateaus, "plateaus:7"}};

/// Scores of H heads, skewed as attention is, a fifth of them to be kept. Plateaus are what max pooling leaves.
struct scores {
  scores(std::int32_t H, std::int32_t N, order of = order::random) : values(std::size_t(H) * std::size_t(N)) {
    std::minstd_rand random(3);
    for (float& x : values) x = std::exp(-12 * static_cast<float>(random()) / 2147483647.0f);
    for (std::int32_t h = 0; h < H; ++h)
      rows.push_back({0, h, N, 0, N, N, N / 5, true}), begin.push_back(begin.back() + N);
    for (std::int32_t h = 0; h < H; ++h) {
      auto const from = values.begin() + begin[std::size_t(h)], to = from + N;
      if (of == order::ascending) std::sort(from, to);
      if (of == order::descending) std::sort(from, to, std::greater<>{});
      if (of == order::equal) std::fill(from, to, 0.25f);
      if (of == order::two_values) std::transform(from, to, from, [](float x) { return x > 0.01f ? 0.5f : 0.25f; });
      for (std::int32_t i = 0; of == order::plateaus && i < N; ++i) from[i] = from[i / 7 * 7];
    }
  }
  kvevict::score_rows view() {
    return {rows.data(), 1, std::int32_t(rows.size()), begin.data(), values.data(), nullptr, 0};
  }
  std::vector<float> values;
  std::vector<kvevict::row> rows;
  std::vector<std::int64_t> begin{0};
};

/// The plainest way: the k best by nth_element on indices, in ascending order, for every head.
std::vector<std::int32_t> naive(scores const& s, std::size_t h) {
  auto const& it = s.rows[h];
  float const* x = s.values.data() + s.begin[h];
  return plain::best(x, it.tokens, it.budget);
}

/// Ada's budgets of all heads, α 0.2, without rounding: ties at the boundary of the pool may lie in another head.
std::vector<double> naive_budgets(scores const& s, std::int32_t N) {
  std::vector<float> pool = s.values;
  auto const kept = s.rows.size() * std::size_t(N / 5);
  std::nth_element(pool.begin(), pool.begin() + std::ptrdiff_t(kept), pool.end(), std::greater<>{});
  std::vector<double> out;
  for (std::size_t h = 0; h < s.rows.size(); ++h) {
    auto const from = s.values.begin() + s.begin[h];
    out.push_back(0.2 * (N / 5) + 0.8 * double(std::count_if(from, from + N, [&](float x) { return x > pool[kept]; })));
  }
  return out;
}

/// What is wrong with a keep set, or null.
char const* wrong(scores const& s, std::int32_t N, bool adaptive, kvevict::keep_set const& keep) {
  if (keep.kept() != std::int64_t(s.rows.size()) * (N / 5)) return "the budget is not kept";
  auto const budgets = naive_budgets(s, N);
  for (std::size_t h = 0; h < s.rows.size(); ++h) {
    if (std::abs(s.rows[h].budget - (adaptive ? budgets[h] : N / 5)) > 4) return "wrong budgets";
    auto const want = naive(s, h);
    if (!std::equal(want.begin(), want.end(), keep.row(std::int64_t(h)).begin(), keep.row(std::int64_t(h)).end()))
      return "wrong tokens";
  }
  return nullptr;
}

void ours(benchmark::State& state, std::int32_t H, std::int32_t N, int threads, bool adaptive,
          order of = order::random) {
  context& c = on(threads);
  scores s(H, N, of);
  kvevict::keep_set keep;
  auto const select = [&] {
    auto rows = s.view();
    for (auto& r : s.rows) r.budget = N / 5;
    if (adaptive) kvevict::heads::adaptive{}(c.ctx, rows);
    kernels::select_best(c.ctx, rows, keep);
  };
  select();
  if (char const* const what = wrong(s, N, adaptive, keep)) return state.SkipWithError(what);
  for (auto _ : state) select();
  count(state, c, double(H) * N, 0, 4.0 * H * N, bound::memory);
}

void nth_element(benchmark::State& state, std::int32_t H, std::int32_t N) {
  scores s(H, N);
  for (auto _ : state)
    for (std::size_t h = 0; h < std::size_t(H); ++h) benchmark::DoNotOptimize(naive(s, h).data());
  count(state, on(1), double(H) * N, 0, 4.0 * H * N, bound::memory);
}

}  // namespace

int main(int argc, char** argv) {
  for (std::int32_t const N : {4096, 32768, 131072}) {
    std::string const tail = "/H:8/N:" + std::to_string(N) + "/B:" + std::to_string(N / 5);
    for (int const threads : {1, 2}) {
      std::string const context = threads == 1 ? "/host" : "/host_threads:2";
      add("select/best" + context + tail, threads, [=](benchmark::State& state) { ours(state, 8, N, threads, false); });
      add("select/adaptive" + context + tail, threads,
          [=](benchmark::State& state) { ours(state, 8, N, threads, true); });
    }
    add("select/nth_element/host" + tail, 1, [=](benchmark::State& state) { nth_element(state, 8, N); });
    for (auto const& [of, name] : hard)
      add(std::string("select/best_of_").append(name).append("/host") + tail, 1,
          [=, of = of](benchmark::State& state) { ours(state, 8, N, 1, false, of); });
  }
  return run_added(argc, argv);
}
