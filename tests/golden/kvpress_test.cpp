// SPDX-License-Identifier: Apache-2.0
// Scores and keep sets of the library against kvpress' on tiny random models; what differs by design: README.md.
#include <string>

#include "support/golden_scores.hpp"
#include "support/reference_keys.hpp"

namespace kvpress_test {

using namespace support;
namespace presets = kvevict::presets;
namespace score = kvevict::score;
namespace heads = kvevict::heads;

namespace {

/// A layer of the fixture, and what each press made of it.
struct pressed {
  golden::json const& file;
  reference::layer in;
  kvevict::rope rope;
  attention all;

  explicit pressed(golden::json const& f) : file(f) {
    rope.base = golden::value<double>(f, "rope_base");
    in.queries = reference::rope(golden::cube(f, "Q"), rope.base);
    in.keys = reference::rope(golden::cube(f, "K"), rope.base);
    in.values = golden::cube(f, "V");
    all = all_rows(batch_of(in));
  }
  [[nodiscard]] std::int32_t number(char const* name) const { return golden::value<std::int32_t>(file, name); }
  [[nodiscard]] rows scores(char const* press) const { return golden::rows(golden::member(file, press), "scores"); }
  [[nodiscard]] index_rows kept(char const* press) const {
    return golden::index_rows(golden::member(file, press), "kept");
  }
  /// Tokens of a head, the window among them.
  [[nodiscard]] std::size_t count() const {
    return reference::kvpress_count(in.N(), golden::value<double>(file, "ratio"));
  }
  [[nodiscard]] std::size_t behind_window() const { return in.N() - static_cast<std::size_t>(number("window")); }

  [[nodiscard]] auto prompt() const {
    return [this](auto const& view) { return kvevict::prompt(view, all.queries()).with_rope(rope); };
  }
  [[nodiscard]] auto contents() const {
    return [this](auto const& view) { return kvevict::contents(view).with_rope(rope); };
  }
};

template <class F> void for_each_layer(F f) {
  for (auto const& c : golden::load("kvpress")) {
    CAPTURE(golden::value<std::string>(c, "model"), golden::value<std::int32_t>(c, "layer"));
    f(pressed(c));
  }
}

/// Each head keeps what the press kept, but where scores tie.
void check_kept(rows const& scores, index_rows const& theirs, index_rows const& ours, double tolerance) {
  REQUIRE(ours.size() == theirs.size());
  for (std::size_t h = 0; h < theirs.size(); ++h) {
    CAPTURE(h);
    CHECK(golden::equal_up_to_ties(scores[h], theirs[h].size(), theirs[h], ours[h], tolerance));
  }
}

/// A press whose `first` columns our policy scores; it keeps as many tokens of each head.
template <class Policy, class Show>
void check(pressed const& p, char const* press, Policy const& policy, std::size_t first, Show show,
           double tolerance = float_noise) {
  CAPTURE(press);
  rows const scores = p.scores(press);
  std::size_t const budget = p.kept(press)[0].size();
  CHECK(worst(scores_of(p.in, policy, int32(budget), show), first_columns(scores, first)) < tolerance);
  check_kept(scores, p.kept(press), kept_of(p.in, policy, budget, show), tolerance);
}

auto snapkv_of(pressed const& p, std::int32_t pool = 5) {
  return presets::snapkv({p.number("window"), pool, kvevict::pooling::average});
}

/// ⌈1000·forced/base⌉: of which ⌊·base/1000⌋ is `forced`.
std::int32_t permille_of(std::size_t forced, std::size_t base) {
  return base == 0 ? 0 : int32((1000 * forced + base - 1) / base);
}

/// Tokens that Ada of kvpress forces into every head.
std::size_t forced_by_kvpress(std::size_t count, double alpha) {
  return std::max<std::size_t>(1, static_cast<std::size_t>(static_cast<double>(count) * alpha));
}

}  // namespace

TEST_CASE("golden: kvpress, SnapKV and TOVA") {
  for_each_layer([](pressed const& p) {
    check(p, "snapkv", snapkv_of(p), p.behind_window(), p.prompt());
    check(p, "tova", presets::tova(), p.in.N() - 1, p.prompt());
  });
}

TEST_CASE("golden: kvpress, PyramidKV") {
  int falling = 0;
  for_each_layer([&](pressed const& p) {
    check(p, "pyramidkv", snapkv_of(p), p.behind_window(), p.prompt());
    auto const theirs = golden::value<counts>(p.file, "pyramidkv_counts");
    auto const W = p.number("window"), N = int32(p.in.N()), L = p.number("layer_count");
    REQUIRE(int32(theirs.size()) == L);
    if (theirs.front() == theirs.back()) return;  // β too large for the window: theirs falls back to equal layers
    ++falling;
    auto const line = presets::pyramidkv({.beta = p.number("beta")}).layers;
    for (std::int32_t l = 0; l < L; ++l) {  // the budget of a whole layer is spent on a line that leaves the window out
      auto const ours = line({int32(p.count()) + W, W, N, l, L}) - W;
      CHECK(std::abs(ours - int32(theirs[static_cast<std::size_t>(l)])) <= 1);
    }
  });
  CHECK(falling > 0);
}

TEST_CASE("golden: kvpress, Ada-SnapKV, whose window is inside the selection") {
  int floor_at_work = 0;
  for_each_layer([&](pressed const& p) {
    for (auto const& [press, alpha] : {std::pair{"ada_snapkv_200", 0.2}, std::pair{"ada_snapkv_950", 0.95}}) {
      CAPTURE(press);
      rows const scores = p.scores(press);
      index_rows const theirs = p.kept(press);
      std::size_t const n = p.count(), all = n * p.in.H(), forced = forced_by_kvpress(n, alpha),
                        W = p.in.N() - p.behind_window(), older = forced - std::min(forced, W);
      auto const contents = [](auto const& view) { return kvevict::contents(view); };
      kvevict::policy const given{given_scores{&scores}};  // the window has the best scores
      auto const with_floor = given.with(heads::forced_floor{permille_of(forced, n)});
      CHECK(golden::equal_up_to_ties(scores, all, theirs, kept_of(p.in, with_floor, n, contents), 0.0));

      auto const outside = snapkv_of(p).with(heads::forced_floor{permille_of(older, n - W)});
      index_rows const ours = kept_of(p.in, outside, n, p.prompt());
      CHECK(golden::equal_up_to_ties(scores, all, theirs, ours, float_noise));
      index_rows const without = kept_of(p.in, snapkv_of(p).with(heads::forced_floor{0}), n, p.prompt());
      floor_at_work += ours != without;
      if (older != 0) continue;
      auto const preset = presets::ada_snapkv({int32(W), 5, 0, kvevict::pooling::average});
      CHECK(golden::equal_up_to_ties(scores, all, theirs, kept_of(p.in, preset, n, p.prompt()), float_noise));
    }
  });
  CHECK(floor_at_work > 0);
}

TEST_CASE("golden: kvpress, Ada forces a token of every head where our floor is none") {
  int differ = 0;
  for_each_layer([&](pressed const& p) {
    rows const scores = p.scores("ada_keydiff_200");
    index_rows const theirs = p.kept("ada_keydiff_200");
    auto const keep = [&](std::int32_t permille) {
      kvevict::policy const diversity{score::key_diversity{}};
      return kept_of(p.in, diversity.with(heads::forced_floor{permille}), 1, p.contents());
    };
    std::size_t const H = p.in.H();
    CHECK(golden::equal_up_to_ties(scores, H, theirs, keep(permille_of(forced_by_kvpress(1, 0.2), 1)), float_noise));
    differ += keep(200) != theirs;
  });
  CHECK(differ > 0);
}

TEST_CASE("golden: kvpress, scores that need no queries") {
  for_each_layer([](pressed const& p) {
    std::size_t const N = p.in.N();
    check(p, "keydiff", presets::keydiff({.recent = 0}), N, p.contents());
    check(p, "knorm", presets::knorm({.recent = 0}), N, p.contents(), 1e-5);
    auto const lag = p.number("lag"), sinks = p.number("sinks");
    kvevict::policy const spread{score::relative_spread{sinks, lag}};
    CHECK(worst(scores_of(p.in, spread, 1, p.contents()), p.scores("lagkv")) < float_noise);
    auto const lagkv = presets::lagkv({.lag = lag, .sinks = sinks});
    check_kept(p.scores("lagkv"), p.kept("lagkv"), kept_of(p.in, lagkv, p.count(), p.contents()), 0.0);
    auto const streaming = presets::streaming_llm({.sinks = sinks});
    CHECK(kept_of(p.in, streaming, p.count(), p.contents()) == p.kept("streaming_llm"));
  });
}

TEST_CASE("golden: kvpress, observed attention") {
  for_each_layer([](pressed const& p) {
    kvevict::policy const means{score::accumulated_attention{score::column_norm::rows_that_see}};
    check(p, "observed_attention", means, p.in.N(), p.prompt());
  });
}

TEST_CASE("golden: kvpress, ChunkKV") {
  int aligned = 0;
  for_each_layer([&](pressed const& p) {
    kvevict::select::chunks const chunks{p.number("chunk")};
    auto const keep = [&](auto const& policy, char const* press, auto show) {
      CAPTURE(press);
      CHECK(kept_of(p.in, policy, p.kept(press)[0].size(), show) == p.kept(press));
    };
    rows const scores = p.scores("chunkkv");
    kvevict::policy const given{given_scores{&scores}};
    kvevict::policy const norms{score::key_norm{}};
    keep(given.with(heads::together{}).with(chunks), "chunkkv", p.contents());
    keep(norms.with(heads::together{}).with(chunks), "chunkkv_knorm", p.contents());
    auto const W = p.number("window");
    CHECK(worst(scores_of(p.in, snapkv_of(p, 1), W, p.prompt()), first_columns(scores, p.behind_window())) <
          float_noise);
    if (W % chunks.size != 0 || int32(p.in.N()) % chunks.size != 0) return;  // chunks that the window cuts
    ++aligned;
    keep(presets::chunkkv({.window = W, .chunk = chunks.size}), "chunkkv", p.prompt());
  });
  CHECK(aligned > 0);
}

TEST_CASE("golden: kvpress, leverage without its sketch") {
  for_each_layer([](pressed const& p) {
    rows const expected = p.scores("leverage");
    reference::layer before = p.in;
    before.keys = golden::cube(p.file, "K");
    for (std::size_t h = 0; h < p.in.H(); ++h) {  // theirs adds 0.01 to the diagonal, ours 1 % of its mean
      reference::row const mean = reference::mean_key(before, h, 0, p.in.N());
      double trace = 0;
      for (std::size_t j = 0; j < p.in.N(); ++j)
        for (std::size_t d = 0; d < p.in.D(); ++d) trace += std::pow(before.keys.at(h, j, d) - mean[d], 2);
      auto const ridge = static_cast<float>(0.01 * static_cast<double>(p.in.D()) / trace);
      auto const leverage = presets::leverage({.sinks = 0, .recent = 0, .ridge = ridge});
      CHECK(worst({scores_of(p.in, leverage, 1, p.contents())[h]}, {expected[h]}) < 1e-5);
      check_kept({expected[h]}, {p.kept("leverage")[h]}, {kept_of(p.in, leverage, p.count(), p.contents())[h]}, 1e-5);
    }
  });
}

TEST_CASE("golden: kvpress, expected attention with covariance and without") {
  for_each_layer([](pressed const& p) {
    for (bool const mean : {false, true}) {
      char const* const press = mean ? "expected_attention_mean" : "expected_attention";
      presets::expected_attention_options o{.positions = p.number("future"), .sinks = p.number("sinks")};
      if (mean)
        o.of = score::query_spread::mean, o.values = score::value_factor::none;
      else
        o.epsilon = golden::value<float>(p.file, "epsilon");
      auto const policy = presets::expected_attention(o);
      rows const theirs = p.scores(press);  // sinks have the largest of all, and 1 more
      rows const ours = scores_of(p.in, policy, int32(p.kept(press)[0].size()), p.prompt());
      CAPTURE(press);
      for (std::size_t h = 0; h < theirs.size(); ++h)
        for (std::size_t j = static_cast<std::size_t>(o.sinks); j < theirs[h].size(); ++j)
          CHECK(ours[h][j] == Approx(theirs[h][j]).epsilon(2e-4).margin(2e-6));
      check_kept(theirs, p.kept(press), kept_of(p.in, policy, p.kept(press)[0].size(), p.prompt()), 1e-5);
    }
  });
}

namespace {

/// W_O of the fixture.
struct output_of {
  std::vector<float> data;
  kvevict::projection given;

  explicit output_of(pressed const& p) {
    golden::tensor const t = golden::as_tensor(p.file, "Wo");  // (E, Hq·D)
    data = t.floats();
    given = {data.data(), int32(t.dim(0)), 1, static_cast<std::int64_t>(t.dim(1)), 0, int32(p.in.Hq())};
  }
};

}  // namespace

TEST_CASE("golden: kvpress, CriticalKV and Critical-Ada, whose window is inside the selection") {
  int halves = 0, heads_of_ada = 0;
  for_each_layer([&](pressed const& p) {
    output_of const wo(p);
    auto const prompt = [&](auto const& view) { return p.prompt()(view).with_output(wo.given); };
    auto const contents = [&](auto const& view) { return p.contents()(view).with_output(wo.given); };
    rows const both = p.scores("criticalkv"), plain = p.scores("snapkv");
    kvevict::policy const second{score::output_weighted{snapkv_of(p).score}, kvevict::protect{0, p.number("window")}};
    rows const ours = scores_of(p.in, second, p.number("window") + 1, prompt);
    for (std::size_t h = 0; h < both.size(); ++h)
      for (std::size_t j = 0; j < p.behind_window(); ++j)
        if (both[h][j] < 1e30) CHECK(ours[h][j] == Approx(both[h][j]).epsilon(2e-5));  // else of the first half
    auto const by_theirs = [&](auto const& of) {
      if constexpr (std::is_same_v<std::decay_t<decltype(of)>, score::window_attention>)
        return given_scores{&plain};
      else
        return of;
    };
    kvevict::policy const halved{presets::criticalkv().score.with_each(by_theirs)};
    std::size_t const n = p.count(), W = static_cast<std::size_t>(p.number("window"));
    if (n / 2 > W) {  // else tokens of the window tie at the first half's end
      ++halves;
      CHECK(kept_of(p.in, halved, n, contents) == p.kept("criticalkv"));
    }
    std::size_t const forced = forced_by_kvpress(n, 0.2);
    auto const ada = kvevict::policy{presets::ada_criticalkv().score.with_each(by_theirs)}.with(
        heads::forced_floor{permille_of(forced, n)});
    index_rows const kept = kept_of(p.in, ada, n, contents), theirs = p.kept("ada_criticalkv");
    for (std::size_t h = 0; h < kept.size(); ++h) {
      CHECK(kept[h].size() == theirs[h].size());
      if (kept[h].size() / 2 <= std::max(W, forced)) continue;
      ++heads_of_ada;
      CHECK(kept[h] == theirs[h]);
    }
  });
  CHECK((halves >= 2 && heads_of_ada >= 2));
}

}  // namespace kvpress_test
