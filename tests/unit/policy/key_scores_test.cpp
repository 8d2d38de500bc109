// SPDX-License-Identifier: Apache-2.0
// Scores that read keys alone, against references in double, and their laws.
#include <kvevict/kvevict.hpp>

#include "support/batch_cache.hpp"
#include "support/catch.hpp"
#include "support/reference_leverage.hpp"
#include "support/ropes.hpp"

namespace policy_key_scores_test {

using namespace support;
namespace presets = kvevict::presets;
using kvevict::rotation;
using kvevict::score::keys;

namespace {

/// One sequence of random keys, of positions that leave gaps; turned by a rope where one is said.
struct keys_of_a_layer {
  batch in;
  layouts::cache<std::int32_t> cache;
  kvevict::rope rope{10000};

  explicit keys_of_a_layer(std::uint64_t seed, std::size_t tokens = 50, rotation by = rotation::none,
                           kvevict::dtype type = kvevict::dtype::f32)
      : in(random_batch(seed, {.Hq = 4, .H = 2, .D = 16, .N = {tokens}, .future = 0})), cache([&] {
          layouts::cache_shape s = cache_shape_of(in);
          s.type = type;
          return layouts::cache<std::int32_t>(layouts::layout::hnd, s);
        }()) {
    show(by);
  }

  reference::layer& layer() { return in.layers[0]; }
  /// Puts the layer's keys into the cache.
  void show(rotation by = rotation::none) {
    fill(cache, in);
    known_rope const known{"", rope, {}, 16};
    cache.fill(kvevict::role::position, [&](int, int, int t, int) { return 3 + 5 * t; });
    cache.fill(kvevict::role::k, [&](int, int h, int t, int d) {
      auto const row = reference::token_row(layer().keys, static_cast<std::size_t>(h), static_cast<std::size_t>(t));
      std::vector<reference::real> const x(row.begin(), row.end());
      return (by == rotation::rope ? known.turned(x, 3 + 5 * t) : x)[static_cast<std::size_t>(d)];
    });
    cache.view.components[0] = cache.view.components[0].turned(by);
  }
  template <class Policy> std::vector<float> scores(Policy const& p) const {
    kvevict::host ctx;
    std::vector<float> values;
    kvevict::scores(ctx, p, kvevict::contents(cache.view).with_rope(rope), {.tokens_per_head = 4}, values);
    return values;
  }
  /// Largest difference of the tokens that have a score.
  template <class Policy> double worst(Policy const& p, rows const& expected) const {
    auto const got = scores(p);
    double out = 0;
    for (std::size_t h = 0; h < expected.size(); ++h)
      for (std::size_t j = 0; j + 1 < expected[h].size(); ++j)
        out = std::max(out, std::abs(static_cast<double>(got[h * expected[h].size() + j]) - expected[h][j]));
    return out;
  }
};

}  // namespace

TEST_CASE("knorm is minus the length of a key, rotated or not") {
  keys_of_a_layer l(131);
  CHECK(l.worst(presets::knorm(), reference::key_norm(l.layer())) < 2e-6);
  l.show(rotation::rope);
  CHECK(l.worst(presets::knorm(), reference::key_norm(l.layer())) < 4e-6);
}

TEST_CASE("manifoldkv is the distance from the mean of all keys, or of those of a window") {
  for (std::size_t const tokens : {50u, 64u, 5u})
    for (std::int32_t const window : {0, 1, 16, 32, 4096}) {
      CAPTURE(tokens, window);
      keys_of_a_layer l(132, tokens);
      auto const expected = reference::key_distance(l.layer(), static_cast<std::size_t>(window));
      CHECK(l.worst(presets::manifoldkv({.window = window}), expected) < 4e-6);
      l.show(rotation::rope);
      CHECK(l.worst(presets::manifoldkv({.window = window, .keys = keys::unrotated}), expected) < 8e-6);
    }
}

TEST_CASE("manifoldkv does not change when all keys are shifted, and doubles when they are doubled") {
  keys_of_a_layer l(133);
  auto const before = reference::key_distance(l.layer(), 0);
  for (double& x : l.layer().keys.data) x = 2 * x + 3;
  l.show();
  auto twice = before;
  for (auto& r : twice)
    for (double& x : r) x *= 2;
  CHECK(l.worst(presets::manifoldkv(), twice) < 2e-5);
}

TEST_CASE("manifoldkv refuses windows that mean nothing") {
  keys_of_a_layer l(134);
  CHECK_THROWS_WITH(l.scores(presets::manifoldkv({.window = -1})), Catch::Contains("key_distance: means of -1 tokens"));
  kvevict::host ctx;
  auto view = l.cache.view;
  view.order = kvevict::row_order::scattered;
  CHECK_THROWS_WITH(
      kvevict::plan(ctx, presets::manifoldkv({.window = 16}), kvevict::contents(view), {.tokens_per_head = 4}),
      Catch::Contains("key_distance: the rows are scattered"));
  CHECK_NOTHROW(kvevict::plan(ctx, presets::manifoldkv(), kvevict::contents(view), {.tokens_per_head = 4}));
}

TEST_CASE("pooled scores are the best, or the mean, of those around, up to the recent tokens") {
  for (std::int32_t const width : {1, 3, 7, 99}) {
    CAPTURE(width);
    keys_of_a_layer l(136, 40);
    auto of_head = reference::key_diversity(l.layer());
    for (auto& r : of_head) r.resize(38);
    auto const check = [&](auto const& policy, reference::rows const& expected) {
      auto const got = l.scores(policy);
      for (std::size_t h = 0; h < 2; ++h)
        for (std::size_t j = 0; j < 38; ++j) CHECK(double(got[h * 40 + j]) == Approx(expected[h][j]).margin(2e-6));
    };
    auto const k = static_cast<std::size_t>(width);
    kvevict::protect const ends{.sinks = 1, .recent = 2};
    kvevict::score::key_diversity const plain;
    check(kvevict::policy{kvevict::score::pooled{plain, {width, kvevict::pooling::max}}, ends},
          reference::pooled(of_head, k, reference::pool::max));
    check(kvevict::policy{kvevict::score::pooled{plain, {width, kvevict::pooling::average}}, ends},
          reference::pooled(of_head, k, reference::pool::average));
  }
}

TEST_CASE("pooled scores need neighbours, and an odd width") {
  keys_of_a_layer l(137);
  auto const wide = [](std::int32_t width) {
    return kvevict::policy{kvevict::score::pooled{kvevict::score::key_diversity{}, {width, kvevict::pooling::max}}};
  };
  CHECK_THROWS_WITH(l.scores(wide(4)), Catch::Contains("odd"));
  l.cache.view.order = kvevict::row_order::scattered;
  CHECK_THROWS_WITH(l.scores(wide(3)), Catch::Contains("pool: the rows are scattered"));
  CHECK_NOTHROW(l.scores(wide(1)));
}

namespace {

constexpr auto plain_leverage = presets::leverage({.sinks = 0, .recent = 1, .ridge = 0, .keys = keys::cached});

/// The last token has a score, too, where it is not protected.
std::vector<double> sums_of(std::vector<float> const& scores, std::size_t tokens) {
  std::vector<double> out;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    if (i % tokens == 0) out.push_back(0);
    out.back() += static_cast<double>(scores[i]);
  }
  return out;
}

}  // namespace

TEST_CASE("leverage is that of the centred keys, rotated or not") {
  for (std::size_t const tokens : {300u, 64u, 7u})
    for (float const ridge : {0.01f, 0.3f}) {
      CAPTURE(tokens, ridge);
      keys_of_a_layer l(141, tokens);
      auto const expected = reference::leverage(l.layer(), static_cast<double>(ridge));
      CHECK(l.worst(presets::leverage({.sinks = 0, .recent = 1, .ridge = ridge, .keys = keys::cached}), expected) <
            1e-5);
      l.show(rotation::rope);
      CHECK(l.worst(presets::leverage({.sinks = 0, .recent = 1, .ridge = ridge}), expected) < 1e-5);
    }
}

TEST_CASE("leverage lies between 0 and 1 and adds up to the channels, or to the tokens but for their mean") {
  for (std::size_t const tokens : {200u, 12u, 9u}) {
    keys_of_a_layer const l(142, tokens);
    auto const scores = l.scores(plain_leverage);
    for (float const s : scores) CHECK((s >= 0 && s <= 1 + 1e-5f));
    for (double const sum : sums_of(scores, tokens))
      CHECK(sum == Approx(std::min<double>(16, static_cast<double>(tokens) - 1)).epsilon(1e-4));
    for (double const sum :
         sums_of(l.scores(presets::leverage({.sinks = 0, .recent = 1, .keys = keys::cached})), tokens))
      CHECK((sum > 1 && sum < std::min<double>(16, static_cast<double>(tokens) - 1)));
  }
}

TEST_CASE("leverage without a ridge does not change under an invertible map of the keys and a shift") {
  keys_of_a_layer l(143, 120);
  auto const expected = reference::leverage(l.layer(), 0);
  CHECK(l.worst(plain_leverage, expected) < 1e-5);
  reference::generator random(7);
  reference::rows map(16, reference::row(16));
  for (auto& line : map)
    for (double& x : line) x = random.normal();
  for (std::size_t d = 0; d < 16; ++d) map[d][d] += 6;
  for (std::size_t h = 0; h < 2; ++h)
    for (std::size_t t = 0; t < 120; ++t) {
      auto const k = reference::token_row(l.layer().keys, h, t);
      for (std::size_t d = 0; d < 16; ++d) l.layer().keys.at(h, t, d) = reference::dot(map[d], k) + 2;
    }
  l.show();
  CHECK(l.worst(plain_leverage, expected) < 1e-4);
}

TEST_CASE("leverage counts channels that others make up once, and keys that are all alike as nothing") {
  keys_of_a_layer l(144, 60);
  for (std::size_t h = 0; h < 2; ++h)
    for (std::size_t t = 0; t < 60; ++t)
      for (std::size_t d = 8; d < 16; ++d) {
        auto& k = l.layer().keys;
        k.at(h, t, d) = h == 0 ? 0.3 * k.at(0, t, d - 8) + 0.7 * k.at(0, t, (d - 7) % 8) : 3;  // rounded in the cache
      }
  for (std::size_t t = 0; t < 60; ++t)
    for (std::size_t d = 0; d < 8; ++d) l.layer().keys.at(1, t, d) = 5;
  l.show();
  auto const scores = l.scores(plain_leverage);
  CHECK(sums_of(scores, 60)[0] == Approx(8).epsilon(1e-3));
  CHECK(sums_of(scores, 60)[1] == 0);
}

TEST_CASE("leverage refuses ridges below 0, wide keys, and keys that are no numbers") {
  keys_of_a_layer l(145);
  CHECK_THROWS_WITH(l.scores(presets::leverage({.sinks = 0, .recent = 1, .ridge = -1, .keys = keys::cached})),
                    Catch::Contains("leverage: a ridge of -1"));
  l.layer().keys.at(1, 7, 3) = std::numeric_limits<double>::infinity();
  l.show();
  CHECK_THROWS_WITH(l.scores(presets::leverage({.sinks = 0, .recent = 1, .keys = keys::cached})),
                    Catch::Contains("sequence 0, head 1"));
  layouts::cache_shape wide;
  wide.lengths = {40}, wide.heads = 1, wide.head_dim = 264;
  layouts::with_layout(layouts::layout::nhd, wide, [&](auto& cache) {
    kvevict::host ctx;
    CHECK_THROWS_WITH(kvevict::plan(ctx, plain_leverage, kvevict::contents(cache.view), {.tokens_per_head = 4}),
                      Catch::Contains("leverage: a matrix of 264 channels"));
  });
}

}  // namespace policy_key_scores_test
