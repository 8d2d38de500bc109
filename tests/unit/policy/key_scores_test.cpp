// SPDX-License-Identifier: Apache-2.0
// Scores that read keys alone, against references in double, and their laws.
#include <kvevict/kvevict.hpp>

#include "support/batch_cache.hpp"
#include "support/catch.hpp"
#include "support/reference_keys.hpp"
#include "support/ropes.hpp"

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
