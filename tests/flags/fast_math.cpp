// SPDX-License-Identifier: Apache-2.0
// Scores of snapkv, ahakv and h2o against naive double precision, and bad input refused: to be compiled with
// -ffast-math -fno-finite-math-only.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include <kvevict/kernels/host.hpp>
#include <kvevict/presets/ahakv.hpp>
#include <kvevict/presets/h2o.hpp>
#include <kvevict/presets/snapkv.hpp>

namespace {

using doubles = std::vector<double>;

constexpr int H = 2, G = 2, N = 150, D = 24, W = 16, budget = 40;
float keys[H][N][D], values[H][N][D], queries[N][H * G][D];
int failed = 0;

kvevict::component rows_of(void* data, kvevict::role what) {
  kvevict::component c;
  c.what = what;
  c.rows.base = static_cast<std::byte*>(data), c.rows.page_count = 1, c.rows.page_stride = H * N * D * 4;
  c.rows.head_stride = N * D * 4, c.rows.slot_stride = D * 4, c.rows.run_bytes = D * 4;
  return c;
}

template <class Policy> std::vector<float> scores(Policy const& policy) {
  static std::int32_t const lengths[] = {N}, row_begin[] = {0, N};
  kvevict::layer_view<> cache;
  cache.pages.sequences = 1, cache.pages.heads = H, cache.pages.columns = 1, cache.pages.page_size = N;
  cache.lengths = {lengths};
  cache = cache.with(rows_of(keys, kvevict::role::k)).with(rows_of(values, kvevict::role::v));
  kvevict::query_rows q;
  q.data = queries, q.token_stride = H * G * D, q.head_stride = D, q.heads = H * G, q.head_dim = D;
  q.row_begin = row_begin;
  kvevict::host ctx;
  std::vector<float> out;
  kvevict::scores(ctx, policy, kvevict::prompt(cache, q), {budget}, out);
  return out;
}

/// Σ of the weights of rows [first, N) for each token of head h, group mean.
doubles attention(int h, int first, bool step_gain) {
  doubles sum(N);
  for (int g = 0; g < G; ++g)
    for (int i = first; i < N; ++i) {
      double const gain = !step_gain ? 1 : i < budget ? 0 : std::sqrt(2 * std::log((i + 1) / double{budget}));
      doubles w(static_cast<std::size_t>(i) + 1);
      double total = 0;
      for (int j = 0; j <= i; ++j) {
        double z = 0;
        for (int d = 0; d < D; ++d) z += double{queries[i][h * G + g][d]} * double{keys[h][j][d]};
        total += w[std::size_t(j)] = std::exp(gain * z / std::sqrt(double{D}));
      }
      for (int j = 0; j <= i; ++j) sum[std::size_t(j)] += w[std::size_t(j)] / total / G;
    }
  return sum;
}

doubles snapkv(int h) {
  doubles const sum = attention(h, N - W, false);
  doubles out(N - W);
  for (int j = 0; j < N - W; ++j)
    for (int i = std::max(0, j - 3); i <= std::min(N - W - 1, j + 3); ++i)
      out[std::size_t(j)] = std::max(out[std::size_t(j)], sum[std::size_t(i)] / W);
  return out;
}

doubles ahakv(int h) {
  doubles out = attention(h, N - W, true), norm(N), prior(N);
  for (std::size_t j = 0; j < N; ++j)
    for (float x : values[h][j]) norm[j] += double{x} * double{x};
  for (int j = 0; j < N; ++j)
    for (int i = std::max(0, j - 2); i <= std::min(N - 1, j + 2); ++i) prior[std::size_t(j)] += norm[std::size_t(i)];
  double const top = *std::max_element(prior.begin(), prior.end());
  for (std::size_t j = 0; j < N; ++j) out[j] *= prior[j] / top;
  return out;
}

template <class Policy, class Expected>
void compare(char const* name, Policy const& policy, int last, Expected expected) {
  auto const got = scores(policy);
  double worst = 0;
  for (int h = 0; h < H; ++h) {
    doubles const want = expected(h);
    for (int j = 0; j < last; ++j)
      worst = std::max(worst, std::abs(double{got[std::size_t(h * N + j)]} / want[std::size_t(j)] - 1));
  }
  std::printf("%s: off by %.1e at most\n", name, worst);
  failed += !(worst < 1e-5);
}

/// With x in one place, for as long as the scores are computed.
template <class Policy> void expect_refusal(char const* what, Policy const& policy, float& place, float x) {
  float const was = place;
  place = x;
  try {
    scores(policy);
    std::printf("%s is not refused\n", what);
    ++failed;
  } catch (kvevict::contract_violation const&) {
  }
  place = was;
}

}  // namespace

int main() {
  unsigned state = 1;
  auto const fill = [&](auto& array, float scale) {
    auto* const x = reinterpret_cast<float*>(&array);
    for (std::size_t i = 0; i < sizeof array / sizeof(float); ++i)
      state = state * 1664525u + 1013904223u, x[i] = scale * (static_cast<float>(state >> 8) * 0x1p-23f - 1.0f);
  };
  fill(keys, 2), fill(values, 1), fill(queries, 2);

  auto const snap = kvevict::presets::snapkv({W, 7});
  auto const aha = kvevict::presets::ahakv({W});
  auto const h2o = kvevict::presets::h2o();
  compare("snapkv", snap, N - W, snapkv);
  compare("ahakv", aha, N - W, ahakv);
  compare("h2o", h2o, N - (budget + 1) / 2, [](int h) { return attention(h, 0, false); });

  float const infinity = __builtin_inff(), nan = __builtin_nanf("");
  for (float const x : {nan, infinity, -infinity}) {
    expect_refusal("snapkv: a key", snap, keys[1][70][3], x);
    expect_refusal("h2o: a query", h2o, queries[N - 1][2][5], x);
    expect_refusal("ahakv: a value", aha, values[0][11][0], x);
  }
  return failed == 0 ? 0 : 1;
}
