// SPDX-License-Identifier: Apache-2.0
// A quantised cache is scored as the cache of its decoded numbers, keeps the same tokens, and when it is compacted the
// bytes of rows and scales are those of the kept tokens.
#include <kvevict/kernels/host.hpp>

#include <kvevict/apply/compact.hpp>

#include "support/any_preset.hpp"
#include "support/catch.hpp"
#include "support/quantised_case.hpp"

namespace quantised_test {

using namespace support;
namespace q = quantised_case;

namespace {

constexpr kvevict::budget ask{.tokens_per_head = 24, .layer = 1, .layer_count = 3};

bool reads_nothing(any_preset const& p) { return p.name == "full" || p.name == "random" || p.name == "streaming_llm"; }

struct decoded {
  std::vector<float> scores;
  std::vector<std::int32_t> keep;
};

/// Largest distance, relative to the larger one.
double apart(std::vector<float> const& x, std::vector<float> const& y) {
  REQUIRE(x.size() == y.size());
  double worst = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    double const a = static_cast<double>(x[i]), b = static_cast<double>(y[i]),
                 size = std::max(std::abs(a), std::abs(b));
    if (size > 0) worst = std::max(worst, std::abs(a - b) / size);
    if (std::isnan(a) != std::isnan(b)) worst = 1e9;
  }
  return worst;
}

/// The bytes of every row of every component.
template <class View> std::vector<std::vector<q::byte>> rows_of(View const& v) {
  std::vector<std::vector<q::byte>> out;
  for (kvevict::component const& c : v)
    for (int b = 0; b < v.sequences(); ++b)
      for (int h = 0; h < v.heads(); ++h)
        for (int t = 0; t < v.length(b, h); ++t) out.push_back(q::bytes_of(v, c, b, h, t));
  return out;
}
template <class View>
std::size_t moved_wrongly(View const& v, std::vector<std::vector<q::byte>> const& before,
                          kvevict::keep_set const& keep) {
  std::size_t wrong = 0, first = 0;
  for (kvevict::component const& c : v)
    for (int b = 0; b < v.sequences(); ++b)
      for (int h = 0; h < v.heads(); ++h) {
        auto const kept = keep(b, h);
        for (std::int64_t i = 0; i < kept.size; ++i)
          wrong += q::bytes_of(v, c, b, h, static_cast<int>(i)) != before[first + static_cast<std::size_t>(kept[i])];
        first += static_cast<std::size_t>(v.length(b, h));
      }
  return wrong;
}

}  // namespace

TEST_CASE("scores and keep sets of a quantised cache are those of the decoded one, compaction moves bytes and scales") {
  kvevict::host ctx;
  std::size_t compared = 0;
  for (q::format const& is : q::formats()) {
    batch in = random_batch(11, {.Hq = 4, .H = 2, .D = q::D, .N = {60, 33}}, 0.4);
    layouts::cache_shape const shape = cache_shape_of(in);
    layouts::with_layout(layouts::layout::nhd, q::shape_of(shape, is), [&](auto& coded) {
      q::quantise(coded, is, 17);  // the same numbers as in every layout
      q::take_numbers(coded, is, in);
    });
    hand_in rows(in);
    auto const form_of = [&](std::size_t i) { return i % 2 == 0 ? form::queries : form::lse; };
    std::vector<decoded> want(presets().size());
    with_cache(layouts::layout::nhd, shape, in, [&](auto& plain) {
      for (std::size_t i = 0; i < want.size(); ++i) {
        any_preset const& p = presets()[i];
        rows.as = form_of(i);
        p.scores(ctx, for_any(p, plain.view), rows, ask, want[i].scores);
        want[i].keep = p.plan(ctx, for_any(p, plain.view), rows, ask).tokens;
      }
    });
    for (layouts::layout const l : layouts::all) {
      if (is.one_run && !q::has_one_run(l)) continue;
      layouts::with_layout(l, q::shape_of(shape, is), [&](auto& coded) {
        q::quantise(coded, is, 17);
        auto const bytes = coded.snapshot();
        auto const before = rows_of(coded.view);
        for (std::size_t i = 0; i < want.size(); ++i) {
          any_preset const& p = presets()[i];
          if (reads_nothing(p)) continue;
          CAPTURE(is.name, coded.name(), p.name);
          rows.as = form_of(i);
          std::vector<float> scores;
          p.scores(ctx, for_any(p, coded.view), rows, ask, scores);
          CHECK(apart(scores, want[i].scores) <= 1e-6);
          kvevict::keep_set const keep = p.plan(ctx, for_any(p, coded.view), rows, ask);
          CHECK(keep.tokens == want[i].keep);
          ++compared;
          if (!p.equal_counts && !coded.view.pages.per_head()) continue;
          kvevict::compact(ctx, coded.view, keep);
          CHECK(moved_wrongly(coded.view, before, keep) == 0);
          coded.restore(bytes);
        }
      });
    }
  }
  CHECK(compared > 1000);
}

}  // namespace quantised_test
