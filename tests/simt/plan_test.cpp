// SPDX-License-Identifier: Apache-2.0
// Every policy on a device: the host's scores to float rounding, its keep sets up to ties within that, its compacted
// bytes.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>

#include <kvevict/cuda.cuh>

#include "simt/device_cache.hpp"
#include "support/catch.hpp"
#include "support/presets.hpp"

namespace plan_test {

using namespace simt_test;
using namespace support;
namespace cuda = kvevict::cuda;

namespace {

/// Values as a cache of that type stores them, so that an LSE over them is the cache's.
void round_to(kvevict::dtype type, reference::cube& x) {
  for (double& v : x.data) {
    auto const f = static_cast<float>(v);
    v = static_cast<double>(type == kvevict::dtype::f16    ? kvevict::to_float(kvevict::from_float<kvevict::f16>(f))
                            : type == kvevict::dtype::bf16 ? kvevict::to_float(kvevict::from_float<kvevict::bf16>(f))
                                                           : f);
  }
}

/// Queries in the cache's type.
struct typed_queries {
  std::vector<std::byte> bytes;
  kvevict::query_rows rows;

  typed_queries(attention const& of, kvevict::dtype type) : rows(of.queries()) {
    for (float const x : of.q) {
      double stored = x;
      append(bytes, type, stored);
    }
    rows.data = bytes.data(), rows.type = type;
  }
};

/// What an engine provides, in host memory.
struct shown {
  hand_in in;
  typed_queries prompt, future;

  shown(batch const& of, kvevict::dtype type, form as) : in(of), prompt(in.prompt, type), future(in.future, type) {
    in.as = as;
  }

  /// f(evidence); `rows` and `floats` bring rows and arrays where the context can read them.
  template <class Preset, class View, class Rows, class Floats, class F>
  void operator()(Preset const&, View const& view, Rows rows, Floats floats, F&& f) const {
    auto const lse = [&](attention const& of, auto const& e) { return e.with_lse(floats(of.lse), of.lse_stride(), 1); };
    if constexpr (Preset::what == needs::nothing)
      f(kvevict::contents(view));
    else if constexpr (Preset::what == needs::moments) {
      law_moments const m(view);
      auto const given = m.at(floats(m.mean), floats(m.covariance));
      f(kvevict::contents(law_moments::unturned(view)).with_query_moments(given));
    } else if constexpr (Preset::what == needs::future)
      f(lse(in.future, kvevict::future(view, rows(future.rows))));
    else if constexpr (Preset::what == needs::features)
      f(kvevict::prompt(view, rows(in.states.rows())));
    else {
      law_output const wo(view);
      auto const output = wo.at(floats(wo.weights));
      if (in.as == form::queries)
        f(kvevict::prompt(view, rows(prompt.rows)).with_output(output));
      else if (in.as == form::lse)
        f(lse(in.prompt, kvevict::prompt(view, rows(prompt.rows))).with_output(output));
      else
        f(kvevict::prompt(view, rows(in.prompt.rows())).with_output(output));
    }
  }
};

void close(std::vector<float> const& got, std::vector<float> const& want, double relative) {
  REQUIRE(got.size() == want.size());
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < got.size(); ++i)
    wrong += !(std::abs(double{got[i]} - want[i]) <= relative * std::abs(want[i]) + 1e-7);
  CHECK(wrong == 0);
}

/// Equal, or different only in tokens of a sequence whose scores lie within the rounding of each other.
void same_up_to_ties(kvevict::keep_set const& got, kvevict::keep_set const& want, std::vector<float> const& scores,
                     double relative) {
  REQUIRE(got.lengths == want.lengths);
  CHECK(got.kept() == want.kept());
  std::size_t begin = 0;
  for (std::int32_t b = 0; b < want.sequences; ++b) {
    std::vector<float> exchanged;
    for (std::int32_t h = 0; h < want.heads; ++h) {
      auto const x = got(b, h), y = want(b, h);
      std::vector<std::int32_t> different;
      std::set_symmetric_difference(x.begin(), x.end(), y.begin(), y.end(), std::back_inserter(different));
      for (std::int32_t const t : different) exchanged.push_back(scores[begin + static_cast<std::size_t>(t)]);
      begin += static_cast<std::size_t>(want.lengths[static_cast<std::size_t>(b * want.heads + h)]);
    }
    if (exchanged.empty()) continue;
    auto const [low, high] = std::minmax_element(exchanged.begin(), exchanged.end());
    CHECK(*high - *low <= 2 * relative * std::abs(*high) + 1e-7);
  }
}

struct setting {
  kvevict::dtype type;
  layouts::layout layout;
  std::int32_t page_size;
  form as;
  std::uint64_t schedule;
};

template <class Preset, class Cache>
void check_policy(Preset const& preset, Cache& cache, batch const& in, setting const& s) {
  using entry = typename std::decay_t<decltype(cache.view)>::table_entry;
  constexpr kvevict::budget ask{.tokens_per_head = 24, .layer = 1, .layer_count = 3};
  CAPTURE(preset.name, cache.name(), s.page_size, static_cast<int>(s.type), static_cast<int>(s.as), s.schedule);
  scheduled const schedule(s.schedule);
  shown const hand(in, s.type, s.as);
  kvevict::host host;
  std::vector<float> want_scores, got_scores;
  kvevict::keep_set want;
  bool const compacts = cache.per_head() || preset.policy.equal_counts;
  kvevict::capability const can{.masked = !compacts};
  hand(
      preset, cache.view.with_capability(can), [](auto const& rows) { return rows; },
      [](std::vector<float> const& x) { return x.data(); },
      [&](auto const& e) {
        kvevict::scores(host, preset.policy, e, in_equal_layers(cache.view, ask), want_scores);
        kvevict::plan(host, preset.policy, e, in_equal_layers(cache.view, ask), want);
      });
  device_cache<entry> there(cache);
  device_memory memory;
  Preset on = preset;
  if constexpr (requires { on.policy.score.weights.features; })
    on.policy.score.weights = on_device_gate(memory, on.policy.score.weights);
  cuda::device ctx(default_stream());
  cuda::keep_set keep;
  auto const rows_there = [&](auto const& rows) { return on_device_rows(memory, rows, there.view.sequences()); };
  hand(
      preset, there.view.with_capability(can), rows_there, [&](std::vector<float> const& x) { return memory.put(x); },
      [&](auto const& e) {
        kvevict::scores(ctx, on.policy, e, in_equal_layers(there.view, ask), got_scores);
        kvevict::plan(ctx, on.policy, e, in_equal_layers(there.view, ask), keep);
      });
  auto const got = keep.read(ctx);
  double const relative = 2e-5;
  close(got_scores, want_scores, relative);
  same_up_to_ties(got, want, want_scores, relative);
  if (!compacts) return;
  cuda::compacted<entry> done;
  compact(ctx, there.view, keep, kvevict::compaction::stable, done);
  done.wait(ctx);
  auto const before = cache.snapshot();
  auto const host_done = compact(host, cache.view, got);
  for (std::int64_t r = 0; r < got.rows(); ++r) CHECK(done.lengths()[r] == host_done.lengths()[r]);
  auto const bytes = cache.snapshot();
  cache.restore(there.snapshot());
  auto shorter = cache.view;
  shorter.lengths = {host_done.lengths().data, cache.view.heads(), 1};
  std::vector<std::vector<float>> rows[2];
  for (int side = 0; side < 2; ++side, cache.restore(bytes))
    for (auto const& c : cache.view)
      for (std::int32_t b = 0; b < cache.view.sequences(); ++b)
        for (std::int32_t h = 0; h < cache.view.heads(); ++h)
          rows[side].push_back(cache.read(c, b, h, shorter.length(b, h)));
  CHECK(rows[0] == rows[1]);
  cache.restore(before);
}

void check_all(setting const& s, std::vector<std::size_t> const& lengths) {
  batch in = random_batch(21 + static_cast<std::uint64_t>(s.page_size), {.Hq = 4, .H = 2, .D = 16, .N = lengths});
  for (reference::layer& l : in.layers)
    round_to(s.type, l.queries), round_to(s.type, l.keys), round_to(s.type, l.values);
  layouts::cache_shape shape = cache_shape_of(in);
  shape.type = s.type, shape.page_size = s.page_size;
  with_cache(s.layout, shape, in,
             [&](auto& cache) { for_each_preset([&](auto const& preset) { check_policy(preset, cache, in, s); }); });
}

}  // namespace

TEST_CASE("every policy plans and compacts on a device as on the host") {
  using l = layouts::layout;
  using kvevict::dtype;
  // A pairwise cover with two schedules, one of them of today; KVEVICT_SIMT_FULL=1 takes all combinations and eight
  // schedules.
  char const* const given = std::getenv("KVEVICT_SIMT_SCHEDULE");
  std::uint64_t const today =
      given != nullptr ? std::strtoull(given, nullptr, 10) : static_cast<std::uint64_t>(std::time(nullptr)) / 86400;
  std::printf("schedule of today: KVEVICT_SIMT_SCHEDULE=%llu\n", static_cast<unsigned long long>(today));
  std::vector<setting> settings{
      {dtype::f32, l::head_pages, 16, form::queries, 1},
      {dtype::bf16, l::nhd, 1, form::lse, today},
      {dtype::f32, l::hnd, 64, form::weights, today},
      {dtype::bf16, l::head_pages, 64, form::lse, 1},
      {dtype::f16, l::csr, 16, form::queries, 1},
      {dtype::f32, l::pointers, 1, form::lse, today},
      {dtype::bf16, l::head_pages, 1, form::queries, today},
  };
  if (std::getenv("KVEVICT_SIMT_FULL") != nullptr) {
    settings.clear();
    for (auto const type : {dtype::f32, dtype::bf16})
      for (auto const layout : {l::nhd, l::head_pages})
        for (std::int32_t const P : {1, 16, 64})
          for (std::uint64_t schedule = 0; schedule < 8; ++schedule)
            settings.push_back({type, layout, P, static_cast<form>(schedule % 3), schedule});
  }
  for (setting const& s : settings) check_all(s, {60, 20, 41});
}

}  // namespace plan_test
