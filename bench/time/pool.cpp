// SPDX-License-Identifier: Apache-2.0
// Pooling the scores of 8 heads in place.
#include <kvevict/kernels/pool.hpp>

#include "support/input.hpp"

namespace {

using namespace bench;

std::vector<float> naive_pool(std::vector<float> const& x, std::int64_t width) {
  std::vector<float> out(x.size());
  auto const n = static_cast<std::int64_t>(x.size());
  for (std::int64_t j = 0; j < n; ++j) {
    float top = -INFINITY;
    for (std::int64_t i = std::max<std::int64_t>(0, j - width / 2); i < std::min(n, j + width / 2 + 1); ++i)
      top = std::max(top, x[std::size_t(i)]);
    out[std::size_t(j)] = top;
  }
  return out;
}

struct scores {
  explicit scores(shape const& s) : in(shape{8, 8, 16, 8, 0}, 1) {
    std::minstd_rand random(1);
    for (std::int32_t h = 0; h < s.H; ++h)
      rows.push_back({0, h, s.N, 0, s.N, s.N, 1, true}), begin.push_back(begin.back() + s.N);
    values.resize(std::size_t(begin.back()));
    for (float& x : values) x = float(random());
  }
  kvevict::score_rows out() {
    return {rows.data(), 1, std::int32_t(rows.size()), begin.data(), values.data(), nullptr, 0};
  }
  input in;
  std::vector<kvevict::row> rows;
  std::vector<std::int64_t> begin{0};
  std::vector<float> values;
};

void ours(benchmark::State& state, shape s, kvevict::pool_options o) {
  context& c = on(1);
  scores x(s);
  std::vector<float> const before(x.values.begin(), x.values.begin() + s.N);
  kernels::pool(c.ctx, o, x.out());
  if (o.kind == kvevict::pooling::average &&
      !close(x.values.data(), plain::average<double>(before.data(), s.N, o.width), 1))
    return state.SkipWithError("wrong averages");
  auto const want = naive_pool(before, o.width);
  if (o.kind == kvevict::pooling::max && !std::equal(want.begin(), want.end(), x.values.begin()))
    return state.SkipWithError("wrong maxima");
  for (auto _ : state) kernels::pool(c.ctx, o, x.out());
  count(state, c, s.N, 0, 8.0 * s.H * s.N, bound::cache);
}

void naive(benchmark::State& state, shape s, std::int64_t width) {
  scores x(s);
  std::vector<float> const one(x.values.begin(), x.values.begin() + s.N);
  for (auto _ : state)
    for (std::int32_t h = 0; h < s.H; ++h) benchmark::DoNotOptimize(naive_pool(one, width));
  count(state, on(1), s.N, 0, 8.0 * s.H * s.N, bound::cache);
}

}  // namespace

int main(int argc, char** argv) {
  shape const s{8, 8, 32768, 128, 0};
  using kvevict::pooling;
  add("pool/max:7/host/" + s.name(), 1, [=](benchmark::State& state) { ours(state, s, {7, pooling::max}); });
  add("pool/average:5/host/" + s.name(), 1, [=](benchmark::State& state) { ours(state, s, {5, pooling::average}); });
  add("pool/naive_max:7/host/" + s.name(), 1, [=](benchmark::State& state) { naive(state, s, 7); });
  return run_added(argc, argv);
}
