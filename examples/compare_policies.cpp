// SPDX-License-Identifier: Apache-2.0
// What policies' decisions are worth, as an engine's unit test would ask: attention that stays, the layer's output
// error, where tokens are kept, a needle, why a token stays. A layer of random numbers, 8 query heads on 4 KV heads.
#include <cstdio>
#include <numeric>
#include <random>
#include <vector>

#include <kvevict/engines/contiguous.hpp>
#include <kvevict/kvevict.hpp>
#include <kvevict/measure/measure.hpp>

namespace measure = kvevict::measure;
namespace presets = kvevict::presets;

int main() {
  constexpr std::int32_t Hq = 8, H = 4, N = 512, D = 64, E = 128, budget = 96, needle = 200;
  std::mt19937 bits(1);
  auto const normals = [&](std::size_t n) {
    std::vector<float> out(n);
    for (float& x : out) x = std::normal_distribution<float>(0, 1)(bits);
    return out;
  };
  auto k = normals(H * N * D), v = normals(H * N * D), q = normals(N * Hq * D), wo = normals(E * Hq * D);
  // each head's queries look for a direction: keys of some tokens have much of it, of four in the middle the most
  auto const direction = normals(H * D), has = normals(N);
  for (std::size_t i = 0; i < q.size(); ++i) q[i] += direction[i / D % Hq / 2 * D + i % D];
  for (std::size_t i = 0; i < k.size(); ++i) {
    std::size_t const h = i / D / N, t = i / D % N;
    k[i] += direction[h * D + i % D] * (t / 4 == needle / 4 ? 0.9f : 0.3f * has[t]);
  }

  std::vector<std::int32_t> const lengths(H, N), rows{0, N};
  kvevict::pages::sizes const sizes{.pages = 1, .page_size = N, .heads = H, .head_dim = D, .type = kvevict::dtype::f32};
  auto const cache = kvevict::engines::contiguous::view_by_head(k.data(), v.data(), sizes, lengths.data());
  kvevict::query_rows queries{.data = q.data(), .token_stride = Hq * D, .head_stride = D, .heads = Hq, .head_dim = D};
  queries.row_begin = rows.data();
  auto const evidence = kvevict::prompt(cache, queries);

  kvevict::host ctx;
  kvevict::projection const output{wo.data(), E, 1, Hq * D};  // o_proj.weight (E, Hq·D)
  auto const snapkv = presets::snapkv({.window = 16});
  auto const of_snapkv = plan(ctx, snapkv, evidence, {budget});
  std::printf("%-14s %6s %9s %8s %7s %7s\n", "", "mass", "error L2", "entropy", "needle", "overlap");
  double best = 0, worst = 1;
  auto const row = [&](char const* name, auto const& policy) {
    auto const keep = plan(ctx, policy, evidence, {budget});
    double const mass = measure::retained_mass(ctx, evidence, keep, {.rows = 16});
    std::printf("%-14s %6.3f %9.3f %8.3f %7.2f %7.2f\n", name, mass,
                measure::output_error(ctx, evidence, keep, output, {.rows = 16}).all().relative_l2(),
                measure::where_kept(ctx, cache, keep, 16).entropy(),
                measure::kept_share(ctx, cache, keep, {{0, needle, needle + 4}}), measure::overlap(keep, of_snapkv));
    best = std::max(best, mass), worst = std::min(worst, mass);
  };
  row("random", presets::random()), row("streaming_llm", presets::streaming_llm()), row("keydiff", presets::keydiff());
  row("h2o", presets::h2o()), row("snapkv", snapkv), row("ada_snapkv", snapkv.with(kvevict::heads::adaptive{}));
  auto const why = measure::explain(ctx, snapkv, evidence, {budget}, {0, 1, needle});
  std::printf("%s\n", measure::text_of(why).c_str());
  return best > worst ? 0 : 1;
}
