// SPDX-License-Identifier: Apache-2.0
// Options of the scores and of the policy, against the references.
#include <kvevict/kvevict.hpp>

#include "support/batch_cache.hpp"
#include "support/catch.hpp"
#include "support/reference_keys.hpp"
#include "support/ropes.hpp"

namespace policy_scores_test {

using namespace support;
namespace presets = kvevict::presets;

namespace {

struct one_layer {
  batch in;
  attention all;
  layouts::cache<std::int32_t> cache;
  kvevict::host ctx;

  explicit one_layer(std::uint64_t seed, shape const& s = {.Hq = 6, .H = 2, .D = 8, .N = {50}, .future = 0})
      : in(random_batch(seed, s)), all(all_rows(in)), cache(layouts::layout::head_pages, cache_shape_of(in)) {
    fill(cache, in);
  }
  auto prompt() const { return kvevict::prompt(cache.view, all.queries()); }

  template <class Policy, class Evidence> void check(Policy const& p, Evidence const& e, rows const& expected) {
    std::vector<float> values;
    kvevict::scores(ctx, p, e, {.tokens_per_head = 12}, values);
    for (std::size_t h = 0; h < expected.size(); ++h)
      for (std::size_t j = 0; j < expected[h].size(); ++j) {
        CAPTURE(in.seed, h, j);
        REQUIRE(values[h * in.N[0] + j] == Approx(expected[h][j]).epsilon(2e-5).margin(1e-7));
      }
  }
};

constexpr struct {
  kvevict::group_reduce ours;
  reference::reduce theirs;
} groups[] = {{kvevict::group_reduce::mean, reference::reduce::mean},
              {kvevict::group_reduce::max, reference::reduce::max},
              {kvevict::group_reduce::sum, reference::reduce::sum}};
constexpr struct {
  kvevict::pooling ours;
  reference::pool theirs;
} pools[] = {{kvevict::pooling::max, reference::pool::max}, {kvevict::pooling::average, reference::pool::average}};

}  // namespace

TEST_CASE("window_attention: every reduction and pooling") {
  one_layer l(111);
  for (auto const& g : groups)
    for (auto const& p : pools)
      for (std::int32_t const width : {1, 3, 9, 61}) {
        CAPTURE(static_cast<int>(g.ours), static_cast<int>(p.ours), width);
        auto const theirs = [&](bool before) {
          return reference::window_scores(l.in.layers[0],
                                          {8, static_cast<std::size_t>(width), p.theirs, g.theirs, before});
        };
        kvevict::protect const last{0, 8};
        l.check(kvevict::policy{kvevict::score::window_attention{8, {width, p.ours}, g.ours}, last}, l.prompt(),
                theirs(false));
        l.check(kvevict::policy{kvevict::score::window_attention{8, {}, g.ours, {width, p.ours}}, last}, l.prompt(),
                theirs(true));
      }
}

TEST_CASE("accumulated_attention: every reduction, sums and means") {
  one_layer l(112);
  for (auto const& g : groups) {
    l.check(kvevict::policy{kvevict::score::accumulated_attention{kvevict::score::column_norm::none, g.ours}},
            l.prompt(), reference::column_sums(l.in.layers[0], g.theirs));
    l.check(kvevict::policy{kvevict::score::accumulated_attention{kvevict::score::column_norm::rows_that_see, g.ours}},
            l.prompt(), reference::column_means(l.in.layers[0], g.theirs));
  }
}

TEST_CASE("recent_attention: every reduction, gain on and off, and a least gain") {
  one_layer l(113);
  for (auto const& g : groups)
    for (double const least : {0.0, 0.7, 1.2})
      for (bool const gain : {true, false}) {
        reference::ahakv_options o;
        o.recent = 8, o.use_gain = gain, o.min_gain = least, o.group = g.theirs;
        kvevict::score::recent_attention const score{
            8, gain ? kvevict::weighting::step_gain : kvevict::weighting::softmax, static_cast<float>(least), g.ours};
        CAPTURE(static_cast<int>(g.ours), least, gain);
        l.check(kvevict::policy{score, kvevict::protect{0, 8}}, l.prompt(),
                reference::recent_accumulation(l.in.layers[0], 12, o));
      }
}

TEST_CASE("recent_attention: rows that see no more than the budget are uniform, never NaN") {
  one_layer l(114);
  kvevict::policy const p{kvevict::score::recent_attention{8}, kvevict::protect{0, 8}};
  std::vector<float> values;
  kvevict::scores(l.ctx, p, l.prompt(), {.tokens_per_head = 49}, values);  // only the last row sees more
  reference::ahakv_options o;
  o.recent = 8;
  auto const expected = reference::recent_accumulation(l.in.layers[0], 49, o);
  for (std::size_t j = 0; j < expected[0].size(); ++j) CHECK(values[j] == Approx(expected[0][j]).epsilon(1e-5));
}

TEST_CASE("value_prior: values of zero leave the score alone") {
  one_layer l(115);
  l.cache.fill(kvevict::role::v, [](int, int, int, int) { return 0; });
  reference::ahakv_options o;
  o.recent = 8, o.use_prior = false;
  l.check(presets::ahakv({.recent = 8}), l.prompt(), reference::ahakv_scores(l.in.layers[0], 12, o));
}

TEST_CASE("evidence: scale and softcap are the engine's") {
  one_layer l(116);
  reference::layer changed = l.in.layers[0];
  changed.scale = 0.2, changed.softcap = 3.0;
  auto const evidence = l.prompt().with_scale(0.2f).with_softcap(3.0f);
  l.check(presets::snapkv({.window = 8, .pool = 5}), evidence,
          reference::window_scores(changed, {8, 5, reference::pool::max, reference::reduce::mean, false}));
  l.check(kvevict::policy{kvevict::score::accumulated_attention{}}, evidence, reference::column_sums(changed));
  rows const lse = reference::row_lse(changed);
  std::vector<float> flat;
  for (auto const& r : lse) flat.insert(flat.end(), r.begin(), r.end());
  l.check(presets::snapkv({.window = 8, .pool = 5}), evidence.with_lse(flat.data(), 1, 50),
          reference::window_scores(changed, {8, 5, reference::pool::max, reference::reduce::mean, false}));
}

TEST_CASE("protect: sinks and a read-only prefix are cut after pooling") {
  one_layer l(117);
  std::vector<std::int32_t> const read_only{16};
  for (std::int32_t const sinks : {0, 3, 20})
    for (bool const prefix : {false, true}) {
      CAPTURE(sinks, prefix);
      reference::snapkv_options o{{8, 5, reference::pool::max, reference::reduce::mean, false},
                                  static_cast<std::size_t>(sinks),
                                  prefix ? std::size_t{16} : 0};
      auto const e = kvevict::prompt(l.cache.view.with_read_only(prefix ? read_only.data() : nullptr), l.all.queries());
      auto const keep =
          kvevict::plan(l.ctx, presets::snapkv({.window = 8, .pool = 5, .sinks = sinks}), e, {.tokens_per_head = 33});
      CHECK(rows_of_sequence(keep, 0) == reference::keep_snapkv(l.in.layers[0], 33, o));
    }
}

TEST_CASE("random: a hash of seed, sequence, layer, head and position, and of nothing else") {
  one_layer l(118, {.Hq = 2, .H = 2, .D = 8, .N = {60, 60}, .future = 0});
  auto const plan = [&](std::uint64_t seed, std::int32_t layer, std::int32_t budget) {
    return kvevict::plan(l.ctx, presets::random({.seed = seed}), kvevict::contents(l.cache.view),
                         {.tokens_per_head = budget, .layer = layer, .layer_count = 3});
  };
  auto const first = plan(1, 0, 20);
  CHECK(plan(1, 0, 20).tokens == first.tokens);
  CHECK(plan(2, 0, 20).tokens != first.tokens);
  CHECK(plan(1, 1, 20).tokens != first.tokens);
  CHECK(rows_of_sequence(first, 0)[0] != rows_of_sequence(first, 0)[1]);
  CHECK(rows_of_sequence(first, 0) != rows_of_sequence(first, 1));
  auto const small = plan(1, 0, 8);  // in two steps: positions did not change when the tokens moved
  auto const done = kvevict::compact(l.ctx, l.cache.view, first);
  std::copy(done.lengths().begin(), done.lengths().end(), l.cache.lengths().begin());
  kvevict::compact(l.ctx, l.cache.view, plan(1, 0, 8));
  for (int b = 0; b < 2; ++b)
    for (int h = 0; h < 2; ++h) {
      auto const at = l.cache.read(kvevict::role::position, b, h, 8);
      CHECK(index_row(at.begin(), at.end()) ==
            rows_of_sequence(small, static_cast<std::size_t>(b))[static_cast<std::size_t>(h)]);
    }
}

TEST_CASE("policy: with() replaces the stage of that kind and leaves the others") {
  constexpr auto snapkv = presets::snapkv({.window = 8, .pool = 5});
  constexpr auto other = snapkv.with(kvevict::heads::adaptive{300})
                             .with(kvevict::layers::pyramid{10})
                             .with(kvevict::protect{4, 8})
                             .with(kvevict::score::none{});
  static_assert(snapkv.equal_counts && !other.equal_counts);
  static_assert(other.heads.floor_permille == 300 && other.layers.beta == 10 && other.protect.sinks == 4);
  static_assert(kvevict::state_floats(presets::h2o()) == 1 &&
                kvevict::state_floats(presets::ahakv({.recent = 9})) == 9);
  static_assert(kvevict::state_floats(presets::snapkv()) == 0);
  static_assert(
      kvevict::state_floats(kvevict::policy{kvevict::score::value_prior{kvevict::score::window_attention{}}}) == 0);
  one_layer l(119);
  auto const keep = kvevict::plan(l.ctx, other.with(kvevict::layers::uniform{}), kvevict::contents(l.cache.view),
                                  {.tokens_per_head = 20});
  CHECK(keep.kept() == 40);
}

TEST_CASE("protect: recent is a count, or a share of the budget as far as the budget goes") {
  CHECK(kvevict::protect{0, 5, 500}.back(20, 0) == 10);
  CHECK(kvevict::protect{0, 15, 500}.back(20, 0) == 15);
  CHECK(kvevict::protect{4, 0, 1000}.back(20, 0) == 16);
  CHECK(kvevict::protect{4, 0, 1000}.back(20, 17) == 3);
  CHECK(kvevict::protect{4, 0, 1000}.back(3, 0) == 0);
  CHECK(kvevict::protect{4, 0, 500}.back(21, 0) == 11);
}

namespace {

/// Keys of a layer, turned by a rope at positions that start at `first` and leave gaps.
struct turned_layer {
  batch in;
  layouts::cache<std::int32_t> cache;
  kvevict::rope rope{10000};

  turned_layer(std::uint64_t seed, int first, kvevict::rotation by, kvevict::dtype type)
      : in(random_batch(seed, {.Hq = 4, .H = 2, .D = 16, .N = {40}, .future = 0})), cache([&] {
          layouts::cache_shape s = cache_shape_of(in);
          s.type = type;
          return layouts::cache<std::int32_t>(layouts::layout::hnd, s);
        }()) {
    fill(cache, in);
    known_rope const known{"", rope, {}, 16};
    cache.fill(kvevict::role::position, [&](int, int, int t, int) { return first + 5 * t; });
    cache.fill(kvevict::role::k, [&](int, int h, int t, int d) {
      std::vector<reference::real> x;
      for (std::size_t i = 0; i < 16; ++i)
        x.push_back(in.layers[0].keys.at(static_cast<std::size_t>(h), static_cast<std::size_t>(t), i));
      if (by == kvevict::rotation::rope) x = known.turned(x, first + 5 * t);
      return x[static_cast<std::size_t>(d)];
    });
    cache.view.components[0] = cache.view.components[0].turned(by);
  }
  std::vector<float> scores(kvevict::score::keys of, bool say = true) const {
    kvevict::host ctx;
    std::vector<float> values;
    auto const e = kvevict::contents(cache.view);
    kvevict::scores(ctx, presets::keydiff({.keys = of}), say ? e.with_rope(rope) : e, {.tokens_per_head = 5}, values);
    return values;
  }
};

}  // namespace

TEST_CASE("key_diversity of unrotated keys is that of the keys before their rope, wherever the sequence begins") {
  using kvevict::rotation;
  using kvevict::score::keys;
  for (auto const type : {kvevict::dtype::f32, kvevict::dtype::bf16})
    for (int const first : {0, 999000}) {
      turned_layer const l(113, first, rotation::rope, type);
      auto const expected = reference::key_diversity(l.in.layers[0]);
      auto const got = l.scores(keys::unrotated), rotated = l.scores(keys::cached);
      double worst = 0, worst_rotated = 0;
      for (std::size_t h = 0; h < 2; ++h)
        for (std::size_t j = 0; j < 39; ++j) {
          worst = std::max(worst, std::abs(static_cast<double>(got[h * 40 + j]) - expected[h][j]));
          worst_rotated = std::max(worst_rotated, std::abs(static_cast<double>(rotated[h * 40 + j]) - expected[h][j]));
        }
      CAPTURE(first);
      CHECK(worst < (type == kvevict::dtype::f32 ? 2e-6 : 6e-3));
      CHECK(worst_rotated > 0.1);
    }
  turned_layer const plain(113, 7, rotation::none, kvevict::dtype::f32);  // a layer without position embedding
  auto const of_plain = plain.scores(keys::unrotated, false), as_it_lies = plain.scores(keys::cached);
  for (std::size_t i = 0; i < of_plain.size(); ++i) CHECK(of_plain[i] == Approx(as_it_lies[i]).margin(1e-6));
}

TEST_CASE("key_diversity refuses to turn back what it does not know the rotation of") {
  using kvevict::rotation;
  using kvevict::score::keys;
  CHECK_THROWS_WITH(turned_layer(1, 0, rotation::unsaid, kvevict::dtype::f32).scores(keys::unrotated),
                    Catch::Contains("key_diversity: component k does not say what turned it"));
  CHECK_THROWS_WITH(turned_layer(1, 0, rotation::opaque, kvevict::dtype::f32).scores(keys::unrotated),
                    Catch::Contains("key_diversity: component k is turned by something opaque"));
  CHECK_THROWS_WITH(turned_layer(1, 0, rotation::rope, kvevict::dtype::f32).scores(keys::unrotated, false),
                    Catch::Contains("nothing says by which; give its base and scaling, scores by with_rope"));
  CHECK_NOTHROW(turned_layer(1, 0, rotation::opaque, kvevict::dtype::f32).scores(keys::cached));
}

}  // namespace policy_scores_test
