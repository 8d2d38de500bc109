// SPDX-License-Identifier: Apache-2.0
// Retained mass, output errors and Ada-KV's bound against a double-precision reference: every table, visibility, LSE or
// none, softmax rows, quantised caches.
#include <kvevict/kvevict.hpp>
#include <kvevict/measure/measure.hpp>

#include "support/catch.hpp"
#include "support/keep_sets.hpp"
#include "support/quantised_case.hpp"
#include "support/reference_measure.hpp"
#include "support/reference_theory.hpp"

namespace measure_attention_test {

using namespace reference;
using layouts::layout;
namespace measure = kvevict::measure;
using support::refusal;

namespace {

double value_of(int b, int h, int t, int d) { return (b + h + t % 7 - d % 3) * 0.25; }

kvevict::projection projection_of(output_matrix const& m) {
  return {m.data.data(), static_cast<std::int32_t>(m.outputs), 1, static_cast<std::int64_t>(m.inputs)};
}

bool near(double a, double b) { return std::abs(a - b) <= 2e-5 * (1 + std::abs(b)); }
bool alike(measure::difference const& a, shift const& b) {
  return near(a.l1, b.off_l1) && near(a.squares, b.off_squares) && near(a.l1_of_y, b.l1) &&
         near(a.squares_of_y, b.squares);
}

template <class Evidence>
void check(kvevict::host& ctx, Evidence const& e, kvevict::keep_set const& keep, worth const& want,
           output_matrix const& wo, std::int32_t rows) {
  auto const mass = measure::retained_masses(ctx, e, keep, {rows});
  auto const through_v = measure::output_error(ctx, e, keep, {}, {rows}),
             through_wo = measure::output_error(ctx, e, keep, projection_of(wo), {rows});
  auto const bounds = measure::loss_bounds(ctx, e, keep, projection_of(wo), {rows});
  for (std::int32_t b = 0; b < keep.sequences; ++b) {
    auto const s = static_cast<std::size_t>(b);
    for (std::int32_t h = 0; h < keep.heads; ++h) {
      CAPTURE(b, h);
      auto const r = static_cast<std::size_t>(b * keep.heads + h);
      CHECK(mass.weights[r] == want.rows[r]);
      CHECK(near(mass(b, h), want.rows[r] == 0 ? 1 : want.masses[r] / want.rows[r]));
      CHECK(alike(through_v.head(b, h), want.heads[r]));
      CHECK(alike(through_wo.head(b, h), want.projected_heads[r]));
    }
    CAPTURE(b);
    CHECK(alike(through_v.layer(b), want.layers[s]));
    CHECK(alike(through_wo.layer(b), want.projected[s]));
    CHECK(near(bounds[s], want.bounds[s]));
    CHECK(through_wo.layer(b).l1 <= bounds[s] * (1 + 1e-9) + 1e-9);
  }
}

std::int32_t rows_in(seeing_case const& c) {
  std::int32_t out = 0;
  for (std::int32_t b = 0; b < c.a.sequences(); ++b) out += std::min(c.a.query_tokens(b), c.a.tokens(b, 0));
  return out;
}

}  // namespace

TEST_CASE("measure: masses, outputs and bounds are those of the reference in every layout, by every evidence") {
  kvevict::host ctx;
  std::vector<float> lse, memory;
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    seeing_case c = random_case(seed, seed % 3 == 0, false);
    vary(c, seed);
    if (rows_in(c) == 0) continue;
    layout const l = layouts::all[seed % std::size(layouts::all)];
    CAPTURE(seed, layouts::name_of(l));
    auto const wo = random_matrix(seed, 10, static_cast<std::size_t>(c.a.query_heads() * c.a.shape.cache.head_dim));
    layouts::with_layout(l, c.a.shape.cache, [&](auto& cache) {
      c.fill(cache);
      auto const view = c.view_of(cache.view);
      generator random(seed);
      auto const keep = support::random_keep(random, view, true);
      for (std::int32_t const rows : {3, 1000}) {
        worth const want = worth_of(c, keep, rows, wo, value_of);
        check(ctx, kvevict::prompt(view, queries_of(c, false, lse)), keep, want, wo, rows);
        check(ctx, kvevict::prompt(view, queries_of(c, true, lse)), keep, want, wo, rows);
        check(ctx, kvevict::prompt(view, softmax_of(c, memory)), keep, want, wo, rows);
      }
    });
  }
}

TEST_CASE("measure: softmax rows by cell, and a base of two") {
  kvevict::host ctx;
  std::vector<float> lse, memory;
  seeing_case c = random_case(5, false, false);
  layouts::with_layout(layout::nhd, c.a.shape.cache, [&](auto& cache) {
    c.fill(cache);
    auto const view = c.view_of(cache.view);
    generator random(5);
    auto const keep = support::random_keep(random, view, true);
    auto const wo = random_matrix(5, 10, static_cast<std::size_t>(c.a.query_heads() * c.a.shape.cache.head_dim));
    worth const want = worth_of(c, keep, 1000, wo, value_of);
    if constexpr (!decltype(view.pages)::holds_pointers)
      check(ctx, kvevict::prompt(view, by_cell(c, view, memory)), keep, want, wo, 1000);
    auto q = queries_of(c, true, lse);
    for (float& x : lse) x /= static_cast<float>(std::log(2.0));
    q.base = kvevict::log_base::two;
    check(ctx, kvevict::prompt(view, q), keep, want, wo, 1000);
  });
}

TEST_CASE("measure: a keep set of all tokens loses nothing, and threads change no bit") {
  kvevict::host ctx;
  support::batch const in = support::random_batch(9, {.Hq = 4, .H = 2, .N = {60, 33}});
  support::attention const rows = support::all_rows(in);
  support::with_cache(in, [&](auto& cache) {
    auto const e = kvevict::prompt(cache.view, rows.queries());
    std::vector<std::vector<std::int32_t>> all;
    for (std::int32_t const n : {60, 60, 33, 33}) {
      all.emplace_back();
      for (std::int32_t j = 0; j < n; ++j) all.back().push_back(j);
    }
    auto const whole = support::keep_of(cache.view, all);
    CHECK(measure::retained_mass(ctx, e, whole) == 1);
    CHECK(measure::output_error(ctx, e, whole).all().relative_l2() == 0);
    auto const keep = plan(ctx, kvevict::presets::snapkv({.window = 8}), e, {.tokens_per_head = 20});
    double const mass = measure::retained_mass(ctx, e, keep),
                 error = measure::output_error(ctx, e, keep).all().relative_l2();
    CHECK((mass > 0.3 && mass < 1 && error > 0));
    kvevict::executor pool{[](void*, std::int64_t count, void (*task)(void*, std::int64_t), void* state) {
                             for (std::int64_t i = count; i-- > 0;) task(state, i);
                           },
                           nullptr, 3, 0};
    kvevict::host threaded(pool);
    CHECK(measure::retained_mass(threaded, e, keep) == mass);
    CHECK(measure::output_error(threaded, e, keep).all().relative_l2() == error);
  });
}

TEST_CASE("measure: quantised keys and values are decoded") {
  kvevict::host ctx;
  support::batch in = support::random_batch(6, {.Hq = 4, .H = 2, .D = quantised_case::D, .N = {40, 30}}, 0.4);
  auto const& formats = quantised_case::formats();
  for (std::size_t const f : {std::size_t{0}, std::size_t{4}, std::size_t{5}, std::size_t{8}, std::size_t{11}}) {
    CAPTURE(formats[f].name);
    layouts::with_layout(
        layout::hnd, quantised_case::shape_of(support::cache_shape_of(in), formats[f]), [&](auto& cache) {
          quantised_case::quantise(cache, formats[f], 23);
          quantised_case::take_numbers(cache, formats[f], in);
          support::attention const rows = support::last_rows(in, 4);
          generator random(f);
          std::vector<std::vector<std::int32_t>> some;
          for (std::int32_t const n : {40, 40, 30, 30}) some.push_back(support::random_row(random, n, 12));
          auto const keep = support::keep_of(cache.view, some);
          auto const mass = measure::retained_masses(ctx, kvevict::prompt(cache.view, rows.queries()), keep);
          auto const error = measure::output_error(ctx, kvevict::prompt(cache.view, rows.queries()), keep);
          for (std::size_t b = 0; b < 2; ++b) {
            std::vector<double> want(2, 0.0);
            double squares = 0, off = 0;
            reference::layer const l = in.prompt(b);
            auto const kept = support::rows_of_sequence(keep, b);
            for (std::size_t i = in.N[b] - 4; i < in.N[b]; ++i) {
              auto const F = reference::retained_mass(l, i, kept);
              for (std::size_t hq = 0; hq < 4; ++hq) {
                want[hq / 2] += F[hq] / 8;
                auto const y = attention_output(l, hq, i, identity(2, in.N[b])[0]),
                           y_kept = attention_output(l, hq, i, kept[hq / 2]);
                for (std::size_t d = 0; d < y.size(); ++d)
                  squares += y[d] * y[d], off += (y[d] - y_kept[d]) * (y[d] - y_kept[d]);
              }
            }
            for (int h = 0; h < 2; ++h)
              CHECK(mass(static_cast<int>(b), h) == Approx(want[static_cast<std::size_t>(h)]).epsilon(1e-4));
            CHECK(error.layer(static_cast<int>(b)).relative_l2() == Approx(std::sqrt(off / squares)).epsilon(1e-3));
          }
        });
  }
}

TEST_CASE("measure: queries of tokens that come after the cache") {
  kvevict::host ctx;
  support::batch const in = support::random_batch(11, {.Hq = 4, .H = 2, .N = {50}, .future = 6});
  support::attention const rows = support::future_rows(in);
  support::with_cache(in, [&](auto& cache) {
    generator random(3);
    auto const keep = support::random_keep(random, cache.view, true);
    auto const e = kvevict::future(cache.view, rows.queries()).with_lse(rows.lse.data(), rows.lse_stride(), 1);
    auto const mass = measure::retained_masses(ctx, e, keep);
    auto const kept = support::rows_of_sequence(keep, 0);
    for (std::size_t h = 0; h < 2; ++h) {
      double want = 0;
      for (std::size_t i = 50; i < 56; ++i)
        for (std::size_t hq = 2 * h; hq < 2 * h + 2; ++hq) {
          auto const a = attention_row(in.layers[0], hq, i);
          double stays = 0, all = 0;
          for (std::size_t j = 0; j < 50; ++j) all += a[j];
          for (std::size_t const j : kept[h]) stays += a[j];
          want += stays / all / 12;
        }
      CHECK(mass(0, static_cast<int>(h)) == Approx(want).epsilon(1e-5));
    }
  });
}

TEST_CASE("measure: no output error is above the bound where rounded weights add up to more than one") {
  kvevict::host ctx;
  layouts::cache_shape const shape{
      .lengths = {2}, .heads = 1, .head_dim = 8, .page_size = 4, .type = kvevict::dtype::bf16};
  layouts::with_layout(layout::nhd, shape, [&](auto& cache) {
    cache.fill([](int, int, int, int) { return 0.0f; }, [](int, int, int t, int) { return t == 0 ? 1.0f : -1.0f; });
    std::vector<float> const q(8, 0.0f), matrix(8, 1.0f);
    std::int32_t const rows[] = {0, 1};
    kvevict::query_rows given;
    given.data = q.data(), given.token_stride = given.head_stride = 8, given.heads = 1, given.head_dim = 8;
    given.row_begin = rows;
    kvevict::projection const wo{matrix.data(), 1, 1, 8};
    for (float const off : {-0.01f, 0.0f, 0.01f}) {
      float const lse = std::log(2.0f) + off;
      auto const e = kvevict::prompt(cache.view, given).with_lse(&lse, 1, 1);
      auto const keep = support::keep_of(cache.view, {{1}});
      double const error = measure::output_error(ctx, e, keep, wo).layer(0).l1,
                   bound = measure::loss_bounds(ctx, e, keep, wo)[0];
      CAPTURE(off, error, bound);
      CHECK(error == Approx(8 * std::exp(-double{off})));
      CHECK(error <= bound * (1 + 1e-12));
    }
  });
}

TEST_CASE("measure: what lies in padding is no value of a token") {
  kvevict::host ctx;
  support::batch const in = support::random_batch(13, {.Hq = 4, .H = 2, .N = {50, 20}});
  support::attention const rows = support::last_rows(in, 8);
  auto const wo = random_matrix(1, 8, 32);
  std::vector<std::int32_t> const first{5, 0};
  support::with_cache(in, [&](auto& cache) {
    auto const e = kvevict::prompt(cache.view, rows.queries()).with_visibility({.first_token = first.data()});
    auto const keep = plan(ctx, kvevict::presets::snapkv({.window = 4}), e, {.tokens_per_head = 10});
    auto const put = [&](float x) {
      for (std::int32_t h = 0; h < 2; ++h)
        for (std::int64_t t = 0; t < 5; ++t)
          *reinterpret_cast<float*>(cache.view.row(*cache.view.find(kvevict::role::v), 0, h, t)) = x;
      return measure::loss_bounds(ctx, e, keep, projection_of(wo));
    };
    auto const bounds = put(0);
    CHECK(bounds[0] > 0);
    for (float const x : {1e6f, std::numeric_limits<float>::quiet_NaN()}) CHECK(put(x) == bounds);
    CHECK(measure::output_error(ctx, e, keep, projection_of(wo)).layer(0).l1 <= bounds[0]);
  });
}

TEST_CASE("measure: what cannot be measured is refused in clear words") {
  kvevict::host ctx;
  support::batch const in = support::random_batch(12, {.Hq = 4, .H = 2, .N = {50, 20}});
  support::attention const rows = support::last_rows(in, 8);
  support::with_cache(in, [&](auto& cache) {
    auto const e = kvevict::prompt(cache.view, rows.queries());
    auto const snapkv = kvevict::presets::snapkv({.window = 4});
    auto const keep = plan(ctx, snapkv, e, {.tokens_per_head = 10});
    auto const says = [&](auto const& evidence, kvevict::keep_set const& k, measure::options const& o = {}) {
      return refusal([&] { measure::retained_mass(ctx, evidence, k, o); });
    };
    CHECK(says(e, keep).empty());
    kvevict::keep_set refused;
    CHECK(!refusal([&] { plan(ctx, snapkv, e, {.tokens_per_head = 1}, refused); }).empty());
    CHECK(says(e, refused).find("measure") != std::string::npos);
    kvevict::keep_set shape = keep, length = keep, order = keep;
    shape.heads = 1, shape.sequences = 4;
    CHECK(says(e, shape).find("measure: the keep set has 4 sequences of 1 heads and the cache 2 of 2") == 0);
    length.lengths[0] = 49;
    CHECK(says(e, length).find("measure: ") == 0);
    std::swap(order.tokens[0], order.tokens[1]);
    CHECK(says(e, order).find("measure: ") == 0);
    CHECK(says(e, keep, {0}).find("measure: 0 rows of attention are asked for") == 0);
    std::vector<std::int32_t> const none{0, 0, 0};
    auto q = rows.queries();
    q.row_begin = none.data();
    CHECK(says(kvevict::prompt(cache.view, q), keep).find("measure: no sequence provides a row") == 0);
    auto const lse = [&](float shift) {
      auto shifted = rows.lse;
      for (float& x : shifted) x += shift;
      return says(e.with_lse(shifted.data(), rows.lse_stride(), 1), keep);
    };
    CHECK(lse(0).empty());
    CHECK(lse(0.5f).find("sequence 0, head 0") != std::string::npos);
    auto bad = rows;
    bad.q[8] = std::numeric_limits<float>::quiet_NaN();
    CHECK(
        says(kvevict::prompt(cache.view, bad.queries()), keep).find("measure: sequence 0, head 0: attention is not") ==
        0);
    bad = rows;
    bad.weights[3] = 0.9f;
    CHECK(says(kvevict::prompt(cache.view, bad.rows()), keep).find("evidence: sequence 0, head 0") == 0);
    auto const wo = random_matrix(1, 8, 32);
    auto of = projection_of(wo);
    CHECK(refusal([&] { measure::loss_bounds(ctx, e, keep, {}); }).find("measure: the bound needs W_O") == 0);
    of.output_stride = 0;
    CHECK(refusal([&] { measure::output_error(ctx, e, keep, of); }).find("measure: W_O has 8 outputs") == 0);
    auto v = cache.view;
    v.component_count = 0;
    for (auto const& c : cache.view)
      if (c.what != kvevict::role::v) v = v.with(c);
    auto const without = kvevict::prompt(v, rows.queries());
    CHECK(refusal([&] { measure::output_error(ctx, without, keep); }).find("measure: the cache has no component") == 0);
    *reinterpret_cast<float*>(cache.view.row(*cache.view.find(kvevict::role::v), 1, 0, 3)) = INFINITY;
    CHECK(refusal([&] { measure::output_error(ctx, e, keep); }).find("measure: sequence 1: outputs are not finite") ==
          0);
  });
}

TEST_CASE("measure: no rounding makes up for keys that are infinite") {
  kvevict::host ctx;
  support::batch const in = support::random_batch(12, {.Hq = 4, .H = 2, .N = {50, 20}});
  support::attention const rows = support::last_rows(in, 8);
  support::with_cache(in, [&](auto& cache) {
    auto const e = kvevict::prompt(cache.view, rows.queries()).with_lse(rows.lse.data(), rows.lse_stride(), 1);
    auto const keep = plan(ctx, kvevict::presets::snapkv({.window = 4}), e, {.tokens_per_head = 10});
    CHECK_NOTHROW(measure::retained_mass(ctx, e, keep, {1}));
    float const* const last = rows.q.data() + 7 * rows.Hq * rows.D;
    std::size_t d = 0;
    while (last[d] * last[rows.D + d] <= 0) ++d;
    for (std::int64_t t = 0; t < 50; ++t) {  // of weight 0 in the last row, by logits of −∞
      reinterpret_cast<float*>(cache.view.row(*cache.view.find(kvevict::role::k), 0, 0, t))[d] =
          last[d] > 0 ? -INFINITY : INFINITY;
      if (t < 48) continue;
      CHECK_THROWS_WITH(measure::retained_mass(ctx, e, keep, {1}),
                        Catch::Contains("sequence 0, head 0: the attention weights of row"));
    }
    CHECK_THROWS_WITH(measure::retained_mass(ctx, kvevict::prompt(cache.view, rows.queries()), keep, {1}),
                      Catch::Contains("measure: sequence 0, head 0: attention is not"));
  });
}

}  // namespace measure_attention_test
