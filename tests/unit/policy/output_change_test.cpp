// SPDX-License-Identifier: Apache-2.0
// What evicting a token does to the outputs of the window, against brute force; and the kernel below it.
#include <kvevict/kernels/host.hpp>
#include <kvevict/presets/dropkv.hpp>
#include <kvevict/threads.hpp>

#include "support/one_prompt.hpp"
#include "support/reference_outputs.hpp"

namespace policy_output_change_test {

using namespace support;
namespace presets = kvevict::presets;
using kvevict::score::change;

namespace {

constexpr kvevict::budget ask{.tokens_per_head = 12};
constexpr std::size_t W = 8;

}  // namespace

TEST_CASE("output_change equals leave-one-out with the softmax worked out anew, whatever the evidence is") {
  for (shape const& s : {shape{.Hq = 6, .H = 2, .D = 20, .N = {70}, .future = 0},
                         shape{.Hq = 2, .H = 2, .D = 8, .N = {30}, .future = 0}}) {
    one_prompt l(301, s);
    for (std::size_t const width : {1u, 5u}) {
      auto const policy = presets::dropkv({.window = int32(W), .pool = int32(width)});
      auto const expected = reference::output_change(l.in.layers[0], W, width);
      CAPTURE(s.Hq, width);
      l.check_all(policy, expected);
    }
  }
}

TEST_CASE("output_change: more window rows than are read at once, and every reduction of the group") {
  one_prompt l(302, {.Hq = 4, .H = 1, .D = 12, .N = {90}, .future = 0});
  l.budget.tokens_per_head = 45;
  auto const each = reference::leave_one_out(l.in.layers[0], 41);
  for (auto const& [ours, theirs] : {std::pair{kvevict::group_reduce::mean, reference::reduce::mean},
                                     std::pair{kvevict::group_reduce::max, reference::reduce::max},
                                     std::pair{kvevict::group_reduce::sum, reference::reduce::sum}})
    l.check(
        kvevict::policy{kvevict::score::output_change{41, {1}, change::renormalised, ours}, kvevict::protect{0, 41}},
        l.queries(), reference::reduce_group(each, 1, theirs));
}

TEST_CASE("output_change: where one token has nearly all the weight, what is left of the others decides") {
  // values that lie close together, far from zero: ‖v‖² − 2v·o + ‖o‖² would leave nothing of their distance
  one_prompt l(303);
  for (double& v : l.in.layers[0].values.data) v = 100 + 0.01 * static_cast<double>(static_cast<float>(v));
  for (double& v : l.in.layers[0].values.data) v = static_cast<double>(static_cast<float>(v));
  fill(l.cache, l.in);
  auto const expected = reference::output_change(l.in.layers[0], W, 1);
  auto const values = l.scores(presets::dropkv({.window = int32(W), .pool = 1}), l.queries());
  for (std::size_t j = 0; j < expected[0].size(); ++j)
    CHECK(static_cast<double>(values[j]) == Approx(expected[0][j]).epsilon(1e-2).margin(1e-9));
  // a row that sees one token alone: 1 − p is 0, and the guard keeps the score a number
  for (double& k : l.in.layers[0].keys.data) k *= 40;
  fill(l.cache, l.in);
  for (float const x : l.scores(presets::dropkv({.window = int32(W)}), l.queries())) CHECK(x - x == 0);
}

TEST_CASE("output_change: OBCache's value term, and with the key's") {
  one_prompt l(304);
  for (bool const keys : {false, true}) {
    auto const policy = presets::dropkv({.window = int32(W), .of = keys ? change::value_and_key : change::value});
    auto const expected = reference::of_group_pooled(reference::removal_terms(l.in.layers[0], W, keys), 2, 5);
    l.check(policy, l.queries(), expected), l.check(policy, l.with_lse(), expected);
    if (keys)
      CHECK_THROWS_WITH(l.scores(policy, l.softmax()), Catch::Contains("softmax rows have none; provide queries"));
    else
      l.check(policy, l.softmax(), expected);
  }
}

TEST_CASE("output_change: a learned sink is a token of value zero, and scale and softcap are the engine's") {
  one_prompt l(305, {.Hq = 2, .H = 1, .D = 16, .N = {40}, .future = 0});
  reference::layer changed = l.in.layers[0];
  changed.scale = 0.2, changed.softcap = 3.0;
  l.check(presets::dropkv({.window = int32(W)}), l.queries().with_scale(0.2f).with_softcap(3.0f),
          reference::output_change(changed, W, 5));
  std::vector<float> const sinks{1.5f, -0.5f};
  auto const with_sink =
      l.scores(presets::dropkv({.window = int32(W), .pool = 1}), l.queries().with_sink_logits(sinks.data()));
  for (std::size_t j = 0; j < 32; ++j) {
    double expected = 0;
    for (std::size_t hq = 0; hq < 2; ++hq)
      for (std::size_t i = 32; i < 40; ++i) {
        double const s = std::exp(static_cast<double>(sinks[hq]));
        reference::row const z = reference::logits(l.in.layers[0], hq, i, reference::first_indices(i + 1));
        reference::row whole(16, 0.0), rest(16, 0.0);
        double sum = s, others = s;
        for (std::size_t n = 0; n <= i; ++n) sum += std::exp(z[n]), others += n == j ? 0 : std::exp(z[n]);
        for (std::size_t n = 0; n <= i; ++n)
          for (std::size_t d = 0; d < 16; ++d) {
            double const v = l.in.layers[0].values.at(0, n, d);
            whole[d] += std::exp(z[n]) / sum * v, rest[d] += n == j ? 0 : std::exp(z[n]) / others * v;
          }
        expected += reference::squared_distance(whole, rest) / 2;
      }
    CHECK(static_cast<double>(with_sink[j]) == Approx(expected).epsilon(3e-5));
  }
}

TEST_CASE("output_change: the same bits in every layout and for any number of threads") {
  batch const in = random_batch(306, {.Hq = 4, .H = 2, .D = 24, .N = {150, 9, 61}, .future = 0});
  attention const all = all_rows(in);
  auto const policy = presets::dropkv({.window = int32(W)});
  kvevict::threads pool(3);
  std::vector<float> want;
  for (layouts::layout const l : layouts::all)
    with_cache(l, cache_shape_of(in), in, [&](auto& cache) {
      for (bool const threaded : {false, true}) {
        kvevict::host ctx = threaded ? kvevict::host(pool.as_executor(0)) : kvevict::host();
        std::vector<float> got;
        kvevict::scores(ctx, policy, kvevict::prompt(cache.view, all.queries()), ask, got);
        if (want.empty()) want = got;
        CAPTURE(cache.name(), threaded);
        CHECK(got == want);
      }
    });
}

TEST_CASE("output_change: values of tokens that no row sees do not count, whatever they are") {
  one_prompt l(307);
  auto const seen = kvevict::visibility{.window = 20};
  auto const policy = presets::dropkv({.window = int32(W), .pool = 1});
  auto const before = l.scores(policy, l.queries().with_visibility(seen));
  l.cache.fill(kvevict::role::v, [&](int, int h, int t, int d) {
    return t < 40 ? __builtin_nanf("")
                  : static_cast<float>(l.in.layers[0].values.at(std::size_t(h), std::size_t(t), std::size_t(d)));
  });
  CHECK(l.scores(policy, l.queries().with_visibility(seen)) == before);
}

}  // namespace policy_output_change_test
