// SPDX-License-Identifier: Apache-2.0
// Scores times what values add to a layer's output, and CriticalKV's halves, against double precision.
#include <kvevict/kernels/host.hpp>
#include <kvevict/presets/ada_criticalkv.hpp>
#include <kvevict/score/key_norm.hpp>
#include <kvevict/threads.hpp>

#include "support/keep_sets.hpp"
#include "support/law_evidence.hpp"
#include "support/one_prompt.hpp"
#include "support/reference_keys.hpp"
#include "support/reference_shares.hpp"

namespace policy_output_weighted_test {

using namespace support;
namespace presets = kvevict::presets;
namespace score = kvevict::score;
using kvevict::role;

namespace {

constexpr std::size_t W = 8;

/// W_O of 11 outputs as PyTorch keeps it, (E, Hq·D), and in another order and type.
struct output_weights {
  reference::projection wo;
  std::vector<float> by_output, by_input;
  std::vector<std::uint16_t> halves;  // bf16
  std::int64_t inputs;

  explicit output_weights(batch const& in)
      : wo{in.Hq * in.D, 11, reference::generator(5).normals(in.Hq * in.D * 11)}, inputs(int32(in.Hq * in.D)) {
    for (double& x : wo.data) x = std::round(x * 32) / 32;  // numbers that bf16 holds
    for (std::size_t o = 0; o < 11; ++o)
      for (std::size_t i = 0; i < wo.inputs; ++i) by_output.push_back(static_cast<float>(wo.at(i, o)));
    for (double const x : wo.data) by_input.push_back(static_cast<float>(x));
    for (float const x : by_output) halves.push_back(static_cast<std::uint16_t>(kvevict::bits::as_uint(x) >> 16));
  }
  kvevict::projection pytorch() const { return {by_output.data(), 11, 1, inputs}; }
  kvevict::projection transposed() const { return {by_input.data(), 11, 11, 1}; }
  kvevict::projection in_bf16() const {
    kvevict::projection out{halves.data(), 11, 1, inputs};
    out.type = kvevict::dtype::bf16;
    return out;
  }
};

rows weighed(rows scores, rows const& norms, double epsilon) {
  for (std::size_t h = 0; h < scores.size(); ++h)
    for (std::size_t j = 0; j < scores[h].size(); ++j) scores[h][j] = (scores[h][j] + epsilon) * norms[h][j];
  return scores;
}
rows window_of(batch const& in) {
  return reference::window_scores(in.prompt(0), {W, 5, reference::pool::max, reference::reduce::mean, false});
}

auto weighted_window(float epsilon) {
  return kvevict::policy{score::output_weighted{score::window_attention{int32(W), {5}}, epsilon},
                         kvevict::protect{0, int32(W)}};
}

}  // namespace

TEST_CASE("output_weighted multiplies by the mean of the group's norms through W_O, however that lies in memory") {
  for (shape const& s : {shape{.Hq = 6, .H = 2, .D = 20, .N = {70}, .future = 0},
                         shape{.Hq = 2, .H = 2, .D = 5, .N = {41}, .future = 0}}) {
    one_prompt l(601, s);
    output_weights const wo(l.in);
    rows const expected = weighed(window_of(l.in), reference::projected_norms(l.in.prompt(0), wo.wo), 0.01);
    for (kvevict::projection const& w : {wo.pytorch(), wo.transposed(), wo.in_bf16()}) {
      l.check(weighted_window(0.01f), l.queries().with_output(w), expected);
      l.check(weighted_window(0.01f), l.softmax().with_output(w), expected);
    }
    auto of_heads = wo.pytorch();
    of_heads.heads = int32(s.Hq);
    rows const norms = reference::projected_norms(l.in.prompt(0), wo.wo);
    auto const keys = kvevict::policy{score::output_weighted{score::key_norm{}, 0}};
    rows alone = reference::key_norm(l.in.prompt(0));
    l.check(keys, kvevict::contents(l.cache.view).with_output(of_heads), weighed(alone, norms, 0));
  }
}

TEST_CASE("output_weighted: of a token's norms in all heads each head has its share, DefensiveKV's factor") {
  one_prompt l(604, {.Hq = 6, .H = 2, .D = 20, .N = {70}, .future = 0});
  output_weights const wo(l.in);
  rows norms = reference::projected_norms(l.in.prompt(0), wo.wo);
  for (std::size_t j = 0; j < norms[0].size(); ++j) {
    double const sum = norms[0][j] + norms[1][j];
    for (auto& of_head : norms) of_head[j] /= sum;
  }
  score::output_weighted const by_share{score::window_attention{int32(W), {5}}, 0, score::output_norms::share_of_heads};
  kvevict::policy const defended{by_share, kvevict::protect{0, int32(W)}};
  l.check(defended, l.queries().with_output(wo.pytorch()), weighed(window_of(l.in), norms, 0));
  std::vector<float> values;
  batch const in = random_batch(605, {.Hq = 2, .H = 2, .D = 20, .N = {40}, .future = 0});
  attention const all = all_rows(in);
  layouts::cache_shape ragged = cache_shape_of(in);
  ragged.head_lengths = {40, 39};
  layouts::cache<std::int32_t> apart(layouts::layout::head_pages, ragged);
  fill(apart, in);
  kvevict::host ctx;
  CHECK_THROWS_WITH(kvevict::scores(ctx, defended, kvevict::prompt(apart.view, all.queries()).with_output(wo.pytorch()),
                                    {.tokens_per_head = 12}, values),
                    Catch::Contains("have 40 and 39 tokens"));
}

TEST_CASE("output_weighted reads norms that the cache holds, one a token or one of each query head") {
  one_prompt l(602);
  rows const norms = reference::projected_norms(l.in.prompt(0), output_weights(l.in).wo);
  for (int const each : {1, 3}) {
    layouts::cache_shape shape = cache_shape_of(l.in);
    shape.state_floats = each;
    layouts::cache<std::int32_t> cache(layouts::layout::head_pages, shape);
    fill(cache, l.in);
    cache.fill(role::state, [&](int, int h, int t, int g) {  // of three heads one has less, one more
      return norms[std::size_t(h)][std::size_t(t)] * (each == 1 ? 1.0 : 0.5 + 0.5 * g);
    });
    for (auto& c : cache.view.components)
      if (c.what == role::state) c.what = role::output_norm;
    l.check(weighted_window(1e-4f), kvevict::prompt(cache.view, l.all.queries()),
            weighed(window_of(l.in), norms, 1e-4));
  }
}

TEST_CASE("output_weighted: a projection of each layer of a stack, and heads of its own for each KV head") {
  batch const in = random_batch(603, {.Hq = 4, .H = 2, .D = 6, .N = {40, 40}, .future = 0});  // two layers
  attention const all = all_rows(in);
  reference::projection const a{24, 7, reference::generator(1).normals(24 * 7)},
      b{24, 7, reference::generator(2).normals(24 * 7)};
  std::vector<float> data;
  for (auto const* p : {&a, &b})
    for (double const x : p->data) data.push_back(static_cast<float>(x));
  with_cache(in, [&](auto& cache) {
    auto view = cache.view;
    view.pages.layers = 2, view.pages.layer_stride = view.pages.seq_stride;
    kvevict::host ctx;
    std::vector<float> values;
    kvevict::budget const ask{.tokens_per_head = 12, .layer_count = 2};
    auto wo = kvevict::projection{data.data(), 7, 7, 1, 24 * 7};
    kvevict::scores(ctx, weighted_window(0), kvevict::prompt(view, all.queries()).with_output(wo), ask, values);
    for (std::size_t s = 0; s < 2; ++s) {
      auto const prompt = in.prompt(s);
      auto const window =
          reference::window_scores(prompt, {W, 5, reference::pool::max, reference::reduce::mean, false});
      rows const expected = weighed(window, reference::projected_norms(prompt, s == 0 ? a : b), 0);
      for (std::size_t h = 0; h < 2; ++h)
        for (std::size_t j = 0; j < 32; ++j)
          CHECK(static_cast<double>(values[(s * 2 + h) * 40 + j]) == Approx(expected[h][j]).epsilon(3e-5));
    }
    wo.layer_stride = 0;
    CHECK_THROWS_WITH(
        kvevict::scores(ctx, weighted_window(0), kvevict::prompt(view, all.queries()).with_output(wo), ask, values),
        Catch::Contains("output_weighted: W_O of one layer for a stack of 2"));
  });
}

TEST_CASE("criticalkv keeps half by attention and half by attention times norms, of even and of odd budgets") {
  for (std::size_t const N : {70u, 33u})
    for (std::int32_t const budget : {9, 12, 23, 24}) {
      one_prompt l(604 + N, {.Hq = 6, .H = 2, .D = 20, .N = {N}, .future = 0});
      output_weights const wo(l.in);
      auto const e = l.queries().with_output(wo.pytorch());
      rows const first = window_of(l.in),
                 second = weighed(first, reference::projected_norms(l.in.prompt(0), wo.wo), 1e-4);
      reference::evictable const where(N, {0, W, 0});
      auto const base = static_cast<std::size_t>(budget) - W;
      CAPTURE(N, budget);
      auto const even =
          kvevict::plan(l.ctx, presets::criticalkv({.window = int32(W), .pool = 5}), e, {.tokens_per_head = budget});
      CHECK(rows_of_sequence(even, 0) == reference::keep_in_halves(first, second, {base, base}, where));
      auto const ada = kvevict::plan(l.ctx, presets::ada_criticalkv({.window = int32(W), .pool = 5}), e,
                                     {.tokens_per_head = budget});
      reference::counts each;
      for (auto const& r : reference::keep_ada(first, static_cast<std::size_t>(budget), where,
                                               {200, reference::rounding::exact, false}))
        each.push_back(r.size() - W);
      CHECK(rows_of_sequence(ada, 0) == reference::keep_in_halves(first, second, each, where));
      // shares that are wrapped stay what they were
      auto policy = presets::criticalkv({.window = int32(W), .pool = 5});
      auto const again = policy.with(policy.score.with_each([](auto const& x) { return x; }));
      CHECK(kvevict::plan(l.ctx, again, e, {.tokens_per_head = budget}).tokens == even.tokens);
    }
}

TEST_CASE("shares whose rest goes to the last are rounded down, but for that one") {
  kvevict::planning::budget_shares const shares{{500, 333, 167}, 3, kvevict::planning::rest_of_shares::to_last};
  for (std::int64_t q = 0; q < 2000; ++q) {
    CHECK(shares.of(q, 0) == q / 2);
    CHECK(shares.of(q, 1) == q * 333 / 1000);
    CHECK(shares.of(q, 0) + shares.of(q, 1) + shares.of(q, 2) == q);
  }
}

TEST_CASE("output_weighted: the same bits in every layout and for any number of threads") {
  batch const in = random_batch(605, {.Hq = 4, .H = 2, .D = 24, .N = {150, 9, 61}, .future = 0});
  attention const all = all_rows(in);
  output_weights const wo(in);
  kvevict::threads pool(3);
  std::vector<float> want;
  for (layouts::layout const l : layouts::all)
    with_cache(l, cache_shape_of(in), in, [&](auto& cache) {
      for (bool const threaded : {false, true}) {
        kvevict::host ctx = threaded ? kvevict::host(pool.as_executor(0)) : kvevict::host();
        std::vector<float> got;
        kvevict::scores(ctx, weighted_window(1e-4f),
                        kvevict::prompt(cache.view, all.queries()).with_output(wo.pytorch()), {.tokens_per_head = 12},
                        got);
        if (want.empty()) want = got;
        CAPTURE(cache.name(), threaded);
        CHECK(got == want);
      }
    });
}

TEST_CASE("output_weighted refuses what it cannot weigh by") {
  one_prompt l(606);
  output_weights const wo(l.in);
  auto const says = [&](auto const& policy, auto const& e, char const* what) {
    CHECK_THROWS_WITH(l.scores(policy, e), Catch::Contains(what));
  };
  says(weighted_window(0), l.queries(), "output_weighted: nothing says how large values are behind W_O");
  auto w = wo.pytorch();
  w.outputs = 0;
  says(weighted_window(0), l.queries().with_output(w), "output_weighted: W_O has 0 outputs");
  w = wo.pytorch(), w.type = kvevict::dtype::i32;
  says(weighted_window(0), l.queries().with_output(w), "output_weighted: W_O has elements of type i32");
  w = wo.pytorch(), w.heads = 3;
  says(weighted_window(0), l.queries().with_output(w), "output_weighted: W_O of 3 query heads for 2 KV heads");
  says(kvevict::policy{score::output_weighted{score::key_norm{}, 0}},
       kvevict::contents(l.cache.view).with_output(wo.pytorch()), "give projection::heads");
  says(weighted_window(-1), l.queries().with_output(wo.pytorch()), "output_weighted: epsilon is -1");
}

}  // namespace policy_output_weighted_test
