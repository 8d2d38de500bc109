// SPDX-License-Identifier: Apache-2.0
// How distinct keys are, as they lie in the cache and before rotation, whose roof is reading them twice; and the
// mixture with attention beside its attention alone.
#include <kvevict/kernels/host.hpp>

#include <kvevict/presets/distinct_and_attended.hpp>

#include "support/input.hpp"

namespace {

using namespace bench;
namespace score = kvevict::score;

constexpr double base = 500000;
constexpr std::int32_t few = 256;  // tokens whose keys stay in the cache

kvevict::layer_view<> turned(input const& in) {
  kvevict::layer_view<> v = in.view();
  v.components[0].turned_by = kvevict::rotation::rope;
  v.can.masked = true;  // heads keep different counts
  return v;
}

std::vector<double> naive_diversity(std::vector<float> const& keys, shape const& s, bool unrotated) {
  auto const D = std::size_t(s.D);
  std::vector<double> k(keys.begin(), keys.end());
  for (std::size_t j = 0; unrotated && j < std::size_t(s.N); ++j) {
    double* const x = k.data() + j * D;
    for (std::size_t i = 0; i < D / 2; ++i) {
      double const angle = double(j) * std::pow(base, -2.0 * double(i) / s.D), a = x[i], b = x[i + D / 2];
      x[i] = a * std::cos(angle) + b * std::sin(angle), x[i + D / 2] = b * std::cos(angle) - a * std::sin(angle);
    }
  }
  auto out = plain::diversity(k, s.D);
  for (double& x : out) x += 1;
  return out;
}

void diversity(benchmark::State& state, shape s, int threads, score::keys which) {
  context& c = on(threads);
  input& in = once(s.name(), [&] { return input(s, 1); });
  auto const evidence = kvevict::contents(turned(in)).with_rope(kvevict::rope{base});
  kvevict::score_rows out = in.out();
  out.most_tokens = s.N, out.total_floats = std::int64_t{s.H} * s.N;
  score::key_diversity const of{which};
  of(c.ctx, evidence, out);
  bool const unrotated = which == score::keys::unrotated;
  auto const right = [&] {
    std::vector<float> one_more(in.scores(1), in.scores(1) + s.N);
    for (float& x : one_more) x += 1;
    return close(one_more.data(), naive_diversity(in.keys(1), s, unrotated), 1);
  };
  if (!once(s.name() + host_name(threads) + std::to_string(unrotated), right))
    return state.SkipWithError("wrong scores");
  for (auto _ : state) of(c.ctx, evidence, out);
  count(state, c, s.N, 0, 2 * s.key_bytes(), s.N > few ? bound::memory : bound::cache);
}

template <class Policy> void plan(benchmark::State& state, shape s, int threads, Policy const& policy) {
  context& c = on(threads);
  input& in = once(s.name(), [&] { return input(s, s.W); });
  auto const evidence = kvevict::prompt(turned(in), in.queries()).with_rope(kvevict::rope{base});
  kvevict::keep_set keep;
  for (auto _ : state) kvevict::plan(c.ctx, policy, evidence, {.tokens_per_head = 1024}, keep);
  if (keep.kept() != std::int64_t{s.H} * 1024) return state.SkipWithError("the budget is not what was asked for");
  count(state, c, s.N, 0, 0, bound::cache);
}

}  // namespace

int main(int argc, char** argv) {
  using kvevict::dtype;
  constexpr auto mixture = kvevict::presets::distinct_and_attended();
  auto const attended = mixture.with(mixture.score.at<1>().score);
  for (int const threads : {1, 2}) {
    std::string const host = std::string("/").append(host_name(threads)).append("/");
    for (dtype const type : {dtype::f32, dtype::bf16}) {
      shape const s{32, 8, 32768, 128, 32, type};
      for (std::int32_t const tokens : {few, s.N})
        for (auto const which : {score::keys::cached, score::keys::unrotated}) {
          shape of = s;
          of.N = tokens;
          add("key_diversity/" + std::string(which == score::keys::cached ? "cached" : "unrotated") + host + of.name(),
              threads, [=](benchmark::State& state) { diversity(state, of, threads, which); });
        }
      add("plan/distinct_and_attended" + host + s.name(), threads,
          [=](benchmark::State& state) { plan(state, s, threads, mixture); });
      add("plan/attended_alone" + host + s.name(), threads,
          [=](benchmark::State& state) { plan(state, s, threads, attended); });
    }
  }
  return run_added(argc, argv);
}
