// SPDX-License-Identifier: Apache-2.0
// The papers' theorems, on the library's own numbers.
#include <cmath>
#include <numeric>

#include <kvevict/kernels/host.hpp>

#include <kvevict/heads/adaptive.hpp>
#include <kvevict/presets/ahakv.hpp>
#include <kvevict/presets/h2o.hpp>
#include <kvevict/presets/snapkv.hpp>

#include "support/catch.hpp"
#include "support/decoder.hpp"

namespace theory_test {

using namespace support;

namespace {

/// Gaussian queries and keys, values of one.
batch gaussian(std::uint64_t seed, std::size_t heads, std::size_t N, std::size_t D) {
  reference::generator random(seed);
  batch out{heads, heads, D, 0, {N}, {}, seed};
  reference::layer l;
  l.queries = {heads, N, D, random.normals(heads * N * D)};
  l.keys = {heads, N, D, random.normals(heads * N * D)};
  l.values = {heads, N, D, std::vector<double>(heads * N * D, 1.0)};
  out.layers.push_back(std::move(l));
  return out;
}

/// Heads of very different temper: head h looks at few tokens when h is large.
batch uneven(std::uint64_t seed, shape const& s) {
  batch out = random_batch(seed, s, 1.0);
  for (auto& l : out.layers)
    for (std::size_t h = 0; h < l.Hq(); ++h)
      for (std::size_t n = 0; n < l.queries.tokens; ++n)
        for (std::size_t d = 0; d < l.D(); ++d) l.queries.at(h, n, d) *= 0.5 + static_cast<double>(h);
  return out;
}

template <class Policy>
index_rows planned(batch const& in, attention const& rows, Policy const& policy, std::int32_t budget) {
  index_rows out;
  with_cache(in, [&](auto& cache) {
    kvevict::host ctx;
    out = rows_of_sequence(
        kvevict::plan(ctx, policy, kvevict::prompt(cache.view, rows.queries()), {.tokens_per_head = budget}), 0);
  });
  return out;
}

/// Scores of the last row per head, mean over the heads. (N)
template <class Policy>
std::vector<std::vector<double>> scored(batch const& in, attention const& rows, Policy const& policy,
                                        std::int32_t budget) {
  std::vector<std::vector<double>> out;
  with_cache(in, [&](auto& cache) {
    kvevict::host ctx;
    std::vector<float> values;
    kvevict::scores(ctx, policy, kvevict::prompt(cache.view, rows.queries()), {.tokens_per_head = budget}, values);
    for (std::size_t h = 0; h < in.H; ++h)
      out.emplace_back(values.begin() + static_cast<std::ptrdiff_t>(h * in.N[0]),
                       values.begin() + static_cast<std::ptrdiff_t>((h + 1) * in.N[0]));
  });
  return out;
}

reference::row mean_of(std::vector<std::vector<double>> const& per_head) {
  reference::row out(per_head[0].size(), 0.0);
  for (auto const& r : per_head)
    for (std::size_t j = 0; j < r.size(); ++j) out[j] += r[j] / static_cast<double>(per_head.size());
  return out;
}

double harmonic(std::size_t n) {
  double sum = 0;
  for (std::size_t i = n; i > 0; --i) sum += 1.0 / static_cast<double>(i);
  return sum;
}

double correlation_with_position(reference::row const& x) {
  double const n = static_cast<double>(x.size()), mean = std::accumulate(x.begin(), x.end(), 0.0) / n,
               middle = (n - 1) / 2;
  double xy = 0, xx = 0, yy = 0;
  for (std::size_t j = 0; j < x.size(); ++j) {
    double const dx = x[j] - mean, dy = static_cast<double>(j) - middle;
    xy += dx * dy, xx += dx * dx, yy += dy * dy;
  }
  return xy / std::sqrt(xx * yy);
}

double sum(reference::row const& x) { return std::accumulate(x.begin(), x.end(), 0.0); }

}  // namespace

TEST_CASE("theory: Ada's allocation is the best of all, by brute force") {
  constexpr std::int32_t W = 2;
  for (std::uint64_t seed = 100; seed < 140; ++seed) {
    batch const in = uneven(seed, {.Hq = 6, .H = 3, .D = 8, .N = {9}, .future = 0});
    rows const weights =
        reference::window_scores(in.layers[0], {W, 1, reference::pool::max, reference::reduce::mean, false});
    for (std::int32_t base = 0; base <= 6; ++base) {
      CAPTURE(seed, base);
      auto const policy = kvevict::presets::snapkv({.window = W, .pool = 1}).with(kvevict::heads::adaptive{0});
      index_rows kept = planned(in, last_rows(in, W), policy, base + W);
      for (auto& r : kept) r.erase(std::remove_if(r.begin(), r.end(), [](std::size_t j) { return j >= 7; }), r.end());
      CHECK(sum(reference::retained_mass(weights, kept)) ==
            Approx(reference::best_mass(weights, static_cast<std::size_t>(3 * base))).epsilon(1e-6));
    }
  }
}

TEST_CASE("theory: the adaptive bound never exceeds the uniform one when nothing is pooled") {
  constexpr std::int32_t W = 4;
  for (std::uint64_t seed = 200; seed < 260; ++seed) {
    batch const in = seed % 2 == 0 ? random_batch(seed, {.Hq = 8, .H = 4, .N = {40}, .future = 0})
                                   : uneven(seed, {.Hq = 8, .H = 4, .N = {40}, .future = 0});
    attention const last = last_rows(in, W);
    rows const weights =
        reference::window_scores(in.layers[0], {W, 1, reference::pool::max, reference::reduce::mean, false});
    auto const older = [&](index_rows kept) {
      for (auto& r : kept) r.erase(std::remove_if(r.begin(), r.end(), [](std::size_t j) { return j >= 36; }), r.end());
      return sum(reference::retained_mass(weights, kept));
    };
    auto const snapkv = kvevict::presets::snapkv({.window = W, .pool = 1});
    for (std::int32_t const budget : {5, 12, 17, 30}) {
      double const uniform = older(planned(in, last, snapkv, budget));
      for (std::int32_t const floor : {0, 50, 200, 333, 1000}) {
        CAPTURE(seed, budget, floor);
        CHECK(older(planned(in, last, snapkv.with(kvevict::heads::adaptive{floor}), budget)) >= uniform - 1e-6);
      }
    }
  }
}

TEST_CASE("theory: the bound is never below the measured L1 loss") {
  for (std::uint64_t seed = 300; seed < 304; ++seed) {
    batch const in = uneven(seed, {.Hq = 4, .H = 2, .D = 8, .N = {40}});
    reference::generator random(seed + 1000);
    reference::projection const wo{in.Hq * in.D, 24, random.normals(in.Hq * in.D * 24)};
    reference::layer const seen = reference::prefix(in.layers[0], 41);  // row 40 attends to the cache and to itself
    double const C = reference::projection_bound(seen, wo);
    hand_in const rows(in);
    for (any_preset const& p : presets())
      with_cache(in, [&](auto& cache) {
        kvevict::host ctx;
        index_rows kept = rows_of_sequence(p.plan(ctx, cache.view, rows, {.tokens_per_head = 14}), 0);
        for (auto& r : kept) r.push_back(40);
        double const loss = reference::l1_loss(seen, wo, 40, kept),
                     bound = reference::epsilon(C, reference::retained_mass(seen, 40, kept));
        CAPTURE(p.name, seed, loss, bound);
        CHECK(loss <= bound + 1e-9);
        CHECK((p.unlimited() || loss > 0));
      });
  }
}

TEST_CASE("theory: accumulated attention falls as H_N - H_(j-1)") {
  constexpr std::size_t N = 512;
  batch const in = gaussian(401, 40, N, 32);
  auto const mean =
      mean_of(scored(in, last_queries(in, N), kvevict::policy{kvevict::score::accumulated_attention{}}, 1));
  CHECK(sum(mean) == Approx(static_cast<double>(N)).epsilon(1e-5));
  constexpr std::size_t block = 16;
  for (std::size_t first = 0; first < 400; first += block) {
    double obtained = 0, expected = 0;
    for (std::size_t j = first; j < first + block; ++j) obtained += mean[j], expected += harmonic(N) - harmonic(j);
    CAPTURE(in.seed, first);
    CHECK(obtained == Approx(expected).epsilon(0.04));
  }
  CHECK(correlation_with_position(mean) < -0.8);
}

TEST_CASE("theory: recent accumulation is flat in position") {
  constexpr std::size_t N = 2048;
  constexpr std::int32_t r = 32;
  batch const in = gaussian(402, 8, N, 64);
  for (auto const weights : {kvevict::weighting::softmax, kvevict::weighting::step_gain}) {
    auto mean =
        mean_of(scored(in, last_queries(in, r), kvevict::policy{kvevict::score::recent_attention{r, weights}}, 1000));
    mean.resize(N - r);
    CAPTURE(in.seed, static_cast<int>(weights));
    CHECK(std::abs(correlation_with_position(mean)) < 0.1);
    CHECK(sum(mean) / static_cast<double>(N - r) == Approx(harmonic(N) - harmonic(N - r)).epsilon(0.01));
  }
}

TEST_CASE("theory: the step gain holds the entropy of a row at ln k") {
  struct {
    std::size_t i;
    std::int32_t k;
  } const cases[] = {{1024, 256}, {2048, 1000}, {4096, 256}};
  for (auto const& c : cases) {
    batch const in = gaussian(403, 3, c.i, 128);
    double entropy = 0;
    for (auto const& a : scored(in, last_queries(in, 1), kvevict::policy{kvevict::score::recent_attention{1}}, c.k))
      for (double const x : a) entropy -= x > 0 ? x * std::log(x) / 3 : 0;
    CAPTURE(in.seed, c.i, c.k);
    CHECK(entropy == Approx(std::log(c.k)).epsilon(0.05));
  }
}

TEST_CASE("theory: scaling all values by a power of two changes nothing for AhaKV") {
  batch const in = random_batch(404, {.Hq = 4, .H = 2, .N = {60}});
  attention const last = last_rows(in, 8);
  auto const policy = kvevict::presets::ahakv({.recent = 8});
  auto const scores = scored(in, last, policy, 20);
  for (double const factor : {0x1p-30, 0.5, 0x1p20}) {
    batch other = in;
    for (double& x : other.layers[0].values.data) x *= factor;
    CAPTURE(in.seed, factor);
    CHECK(scored(other, last, policy, 20) == scores);
    CHECK(planned(other, last, policy, 20) == planned(in, last, policy, 20));
  }
}

TEST_CASE("theory: AhaKV without gain and prior is SnapKV's window sum") {
  batch const in = random_batch(405, {.Hq = 6, .H = 2, .N = {60}});
  attention const last = last_rows(in, 8);
  auto const aha = scored(
      in, last,
      kvevict::policy{kvevict::score::recent_attention{8, kvevict::weighting::softmax}, kvevict::protect{0, 8}}, 20);
  auto const snap = scored(in, last, kvevict::presets::snapkv({.window = 8, .pool = 1}), 20);
  for (std::size_t h = 0; h < 2; ++h)
    for (std::size_t j = 0; j < 52; ++j) CHECK(aha[h][j] == Approx(8 * snap[h][j]).epsilon(1e-5));
}

TEST_CASE("theory: H2O's victim is the best single eviction") {
  double (*const gains[])(double) = {[](double z) { return z; }, [](double z) { return std::sqrt(z + 1); },
                                     [](double z) { return std::log(z + 1); }};
  batch const in = random_batch(406, {.Hq = 4, .H = 2, .N = {16, 16}, .future = 30}, 1.0);
  constexpr std::size_t budget = 16, recent_tokens = 5;
  with_decoder(kvevict::presets::h2o({.recent = recent_tokens}), in, {budget, 0, form::lse}, [&](auto& engine, auto&) {
    std::vector<std::vector<slot_state>> before(4);
    int evictions = 0;
    engine.run(
        [&](std::size_t) {
          for (std::size_t r = 0; r < 4; ++r) before[r] = engine.row(r / 2, r % 2);
        },
        [&](std::size_t step) {
          for (std::size_t r = 0; r < 4; ++r) {
            auto const after = engine.row(r / 2, r % 2);
            if (after.size() == before[r].size()) continue;
            ++evictions;
            for (auto const h : gains) {
              auto const total = [&](auto const& row) {
                double s = 0;
                for (auto const& slot : row) s += h(slot.state[0]);
                return s;
              };
              double best = -1;
              for (std::size_t victim = 0; victim + recent_tokens < before[r].size(); ++victim) {
                auto rest = before[r];
                rest.erase(rest.begin() + static_cast<std::ptrdiff_t>(victim));
                best = std::max(best, total(rest));
              }
              CAPTURE(in.seed, step, r);
              CHECK(total(after) == Approx(best).epsilon(1e-12));
            }
          }
        });
    CHECK(evictions == 4 * 30);
  });
}

}  // namespace theory_test
