// SPDX-License-Identifier: Apache-2.0
// Laws of keep sets, for every preset: what they are made of, how many they are, and what does not change them.
#include <algorithm>
#include <cmath>

#include "support/any_preset.hpp"
#include "support/catch.hpp"

namespace keep_sets_test {

using namespace support;

namespace {

constexpr std::int32_t budget = 21;

kvevict::keep_set plan_in_cache(any_preset const& p, batch const& in, hand_in const& rows, kvevict::budget const& ask,
                                std::int32_t const* read_only = nullptr) {
  kvevict::keep_set out;
  with_cache(in, [&](auto& cache) {
    kvevict::host ctx;
    out = p.plan(ctx, cache.view.with_read_only(read_only), rows, in_equal_layers(cache.view, ask));
  });
  return out;
}

/// f(preset, keep set, batch, budget) over batches of sequences of different lengths, some no longer than the budget,
/// one empty.
template <class F> void for_each_plan(F f) {
  for (std::uint64_t const seed : {11u, 12u}) {
    batch const in =
        random_batch(seed, {.Hq = seed == 11 ? 6u : 4u, .H = seed == 11 ? 2u : 4u, .N = {60, 37, 21, 0, 64, 5}});
    hand_in const rows(in);
    for (any_preset const& p : presets())
      for (std::int32_t const b : {budget, budget + 1, 40}) {
        CAPTURE(p.name, seed, b);
        f(p, plan_in_cache(p, in, rows, {.tokens_per_head = b, .layer = 1, .layer_count = 3}), in, b);
      }
  }
}

std::int64_t kept_of(kvevict::keep_set const& keep, std::size_t b) {
  std::int64_t sum = 0;
  for (std::int32_t h = 0; h < keep.heads; ++h) sum += keep(int32(b), h).size;
  return sum;
}

bool contains(kvevict::slice<std::int32_t const> row, std::int32_t token) {
  return std::binary_search(row.begin(), row.end(), token);
}

/// The same tokens as the reference's, but where scores differ by no more than float noise; exact ties go to the newer
/// token.
void check_same(answer const& expected, index_rows const& obtained) {
  for (std::size_t h = 0; h < obtained.size(); ++h) {
    if (obtained[h] == expected.keep[h]) continue;
    CAPTURE(h, obtained[h], expected.keep[h]);
    auto const older = [&](index_row const& x) {
      index_row out;
      for (std::size_t const j : x)
        if (j >= expected.where.begin && j < expected.where.end) out.push_back(j - expected.where.begin);
      return out;
    };
    REQUIRE_FALSE(expected.scores.empty());
    auto const& scores = expected.scores[h];
    double const noise = 1e-5 * *std::max_element(scores.begin(), scores.end());
    index_row const theirs = older(expected.keep[h]), ours = older(obtained[h]);
    CHECK(reference::equal_up_to_ties(scores, theirs.size(), theirs, ours, noise));
    for (std::size_t const j : theirs)
      for (std::size_t const i : ours)
        if (!std::binary_search(ours.begin(), ours.end(), j) && !std::binary_search(theirs.begin(), theirs.end(), i))
          CHECK(scores[i] != scores[j]);
  }
}

}  // namespace

TEST_CASE("laws: rows are ascending and in range") {
  for_each_plan([](any_preset const&, kvevict::keep_set const& keep, batch const& in, std::int32_t) {
    REQUIRE(keep.sequences == int32(in.B()));
    REQUIRE(keep.heads == int32(in.H));
    REQUIRE(static_cast<std::int64_t>(keep.row_begin.size()) == keep.rows() + 1);
    for (std::int64_t r = 0; r < keep.rows(); ++r) {
      auto const row = keep.row(r);
      auto const N = int32(in.N[static_cast<std::size_t>(r) / in.H]);
      CHECK(keep.lengths[static_cast<std::size_t>(r)] == N);
      CHECK(std::adjacent_find(row.begin(), row.end(), [](auto a, auto b) { return a >= b; }) == row.end());
      CHECK((row.empty() || (row[0] >= 0 && row[row.size - 1] < N)));
    }
  });
}

TEST_CASE("laws: protected tokens stay") {
  for_each_plan([](any_preset const& p, kvevict::keep_set const& keep, batch const& in, std::int32_t b) {
    for (std::size_t s = 0; s < in.B(); ++s)
      for (std::size_t h = 0; h < in.H; ++h)
        for (std::int32_t j = 0; j < int32(in.N[s]); ++j)
          if (j < p.first || j >= int32(in.N[s]) - p.newest(b)) CHECK(contains(keep(int32(s), int32(h)), j));
  });
}

TEST_CASE("laws: a read-only prefix stays, and counts as kept") {
  batch const in = random_batch(21, {.N = {60, 48, 40, 16}});
  std::vector<std::int32_t> const read_only{16, 0, 16, 16};  // whole pages
  hand_in const rows(in);
  for (any_preset const& p : presets()) {
    CAPTURE(p.name, in.seed);
    kvevict::budget const ask{.tokens_per_head = 36};
    auto const keep = plan_in_cache(p, in, rows, ask, read_only.data()), without = plan_in_cache(p, in, rows, ask);
    for (std::size_t s = 0; s < in.B(); ++s) {
      for (std::int32_t h = 0; h < 2; ++h)
        for (std::int32_t j = 0; j < read_only[s]; ++j) CHECK(contains(keep(int32(s), h), j));
      CHECK(kept_of(keep, s) == kept_of(without, s));
    }
  }
}

TEST_CASE("laws: sums are exact, for every layer and over the layers") {
  for_each_plan([](any_preset const& p, kvevict::keep_set const& keep, batch const& in, std::int32_t b) {
    for (std::size_t s = 0; s < in.B(); ++s) {
      if (p.over_layers) continue;
      std::int64_t const each = p.unlimited() ? int32(in.N[s]) : std::min(b, int32(in.N[s]));
      CHECK(kept_of(keep, s) == static_cast<std::int64_t>(in.H) * each);
      if (p.equal_counts)
        for (std::int32_t h = 0; h < keep.heads; ++h) CHECK(keep(int32(s), h).size == each);
    }
  });
  batch const in = random_batch(22, {.Hq = 6, .H = 3, .N = {60, 30, 25, 9}});
  hand_in const rows(in);
  for (any_preset const& p : presets())
    for (std::int32_t const layers : {1, 2, 5, 7})
      for (std::int32_t const b : {9, 16, 21}) {
        CAPTURE(p.name, in.seed, layers, b);
        std::vector<std::int64_t> sums(in.B(), 0);
        for (std::int32_t l = 0; l < layers; ++l) {
          auto const keep = plan_in_cache(p, in, rows, {.tokens_per_head = b, .layer = l, .layer_count = layers});
          for (std::size_t s = 0; s < in.B(); ++s) sums[s] += kept_of(keep, s);
        }
        for (std::size_t s = 0; s < in.B(); ++s)
          CHECK(sums[s] == layers * 3 * (p.unlimited() ? int32(in.N[s]) : std::min(b, int32(in.N[s]))));
      }
}

TEST_CASE("laws: every sequence may have a budget of its own") {
  batch const in = random_batch(23, {.N = {60, 60, 37, 12}});
  hand_in const rows(in);
  std::vector<std::int32_t> const budgets{17, 33, 37, 9};
  for (any_preset const& p : presets()) {
    CAPTURE(p.name, in.seed);
    auto const keep = plan_in_cache(p, in, rows, {.tokens_per_head = 1, .per_sequence = budgets.data()});
    for (std::size_t s = 0; s < in.B(); ++s) {
      CHECK(kept_of(keep, s) == 2 * (p.unlimited() ? int32(in.N[s]) : budgets[s]));
      auto const alone = plan_in_cache(p, in, rows, {.tokens_per_head = budgets[s]});
      CHECK(rows_of_sequence(keep, s) == rows_of_sequence(alone, s));
    }
  }
}

TEST_CASE("laws: a budget of the whole length is the identity") {
  batch const in = random_batch(24, {.N = {60, 0, 17}});
  hand_in const rows(in);
  for (any_preset const& p : presets())
    for (std::int32_t const b : {60, 61, 1 << 30, std::numeric_limits<std::int32_t>::max()}) {
      CAPTURE(p.name, in.seed, b);
      CHECK(plan_in_cache(p, in, rows, {.tokens_per_head = b, .layer = 0, .layer_count = 4}).is_identity());
    }
}

TEST_CASE("laws: zero tokens and an empty batch are outcomes") {
  for (batch const& in :
       {random_batch(25, {.N = {}}), random_batch(26, {.N = {0}}), random_batch(27, {.N = {0, 0, 0}})}) {
    hand_in const rows(in);
    for (any_preset const& p : presets())
      for (std::int32_t const b : {16, 40}) {
        CAPTURE(p.name, in.B(), b);
        auto const keep = plan_in_cache(p, in, rows, {.tokens_per_head = b});
        CHECK(keep.rows() == static_cast<std::int64_t>(in.B() * in.H));
        CHECK(keep.kept() == 0);
        CHECK(keep.is_identity());
      }
  }
}

TEST_CASE("laws: keep sets follow a permutation of the heads") {
  std::vector<std::size_t> const order{2, 0, 3, 1};
  batch const in = random_batch(28, {.Hq = 8, .H = 4, .N = {60, 44}}), other = permuted(in, order);
  hand_in const rows(in), other_rows(other);
  for (any_preset const& p : presets()) {
    if (p.name == "random" || p.name == "attention_gate") continue;  // it hashes the head; its gate has a flag per head
    CAPTURE(p.name, in.seed);
    kvevict::budget const ask{.tokens_per_head = budget};
    auto const keep = plan_in_cache(p, in, rows, ask), permuted_keep = plan_in_cache(p, other, other_rows, ask);
    for (std::size_t s = 0; s < in.B(); ++s)
      for (std::size_t h = 0; h < in.H; ++h) {
        index_row small = rows_of_sequence(permuted_keep, s)[h], large = rows_of_sequence(keep, s)[order[h]];
        // equal remainders go to the lower head: a head may have one token more or less, its worst
        if (!p.equal_counts) {
          if (small.size() > large.size()) std::swap(small, large);
          CHECK(large.size() - small.size() <= 1);
          CHECK(std::includes(large.begin(), large.end(), small.begin(), small.end()));
        } else {
          CHECK(small == large);
        }
      }
  }
}

TEST_CASE("laws: keep sets depend on the ranks of scores only") {
  batch const in = random_batch(29, {.Hq = 8, .H = 4, .N = {60, 44}});
  hand_in const rows(in);
  for (any_preset const& p : presets())
    for (float const factor : {0x1p-40f, 0.5f, 4.0f, 0x1p60f})
      with_cache(layouts::layout::head_pages, cache_shape_of(in), in, [&](auto& cache) {
        CAPTURE(p.name, in.seed, factor);
        kvevict::host ctx;
        kvevict::budget ask{.tokens_per_head = budget, .layer = 1, .layer_count = 3};
        ask = in_equal_layers(cache.view, ask);
        CHECK(p.plan_scaled(ctx, cache.view, rows, ask, factor).tokens == p.plan(ctx, cache.view, rows, ask).tokens);
      });
}

TEST_CASE("laws: keep sets are the references', up to ties") {
  for (form const as : {form::queries, form::lse, form::weights})
    for (std::uint64_t const seed : {31u, 32u, 33u}) {
      batch const in = random_batch(
          seed, {.Hq = seed == 32 ? 3u : 8u, .H = seed == 32 ? 3u : 2u, .D = seed == 33 ? 22u : 8u, .N = {50, 29, 70}});
      hand_in rows(in);
      rows.as = as;
      for (any_preset const& p : presets()) {
        if (p.expected == nullptr) continue;
        kvevict::budget const ask{.tokens_per_head = budget, .layer = 1, .layer_count = 5};
        auto const keep = plan_in_cache(p, in, rows, ask);
        for (std::size_t s = 0; s < in.B(); ++s) {
          CAPTURE(p.name, seed, s, static_cast<int>(as));
          check_same(p.expected({in.layers[s], in.N[s], static_cast<std::size_t>(budget), 1, 5}),
                     rows_of_sequence(keep, s));
        }
      }
    }
}

TEST_CASE("laws: scores lie where the references' do") {
  batch const in = random_batch(34, {.Hq = 6, .H = 2, .N = {50, 29}});
  for (form const as : {form::queries, form::lse, form::weights})
    for (any_preset const& p : presets()) {
      if (p.expected == nullptr || p.over_layers) continue;
      hand_in rows(in);
      rows.as = as;
      std::vector<float> values;
      with_cache(in, [&](auto& cache) {
        kvevict::host ctx;
        p.scores(ctx, cache.view, rows, {.tokens_per_head = budget}, values);
      });
      std::size_t begin = 0;
      for (std::size_t s = 0; s < in.B(); ++s) {
        answer const expected = p.expected({in.layers[s], in.N[s], static_cast<std::size_t>(budget), 0, 1});
        for (std::size_t h = 0; h < in.H; ++h, begin += in.N[s])
          for (std::size_t j = 0; h < expected.scores.size() && j < expected.scores[h].size(); ++j) {
            CAPTURE(p.name, s, h, j, static_cast<int>(as));
            double const theirs = expected.scores[h][j], ours = values[begin + expected.where.begin + j];
            REQUIRE(std::abs(ours - theirs) <= 1e-5 * std::abs(theirs) + 1e-7);
          }
      }
    }
}

}  // namespace keep_sets_test
