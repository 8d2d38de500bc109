// SPDX-License-Identifier: Apache-2.0
// Plans of quantised caches: numbers that are none are found, an engine's LSE is judged by how keys are stored, and
// tokens whose scales belong to a page do not move.
#include <kvevict/kvevict.hpp>

#include <limits>

#include "support/catch.hpp"
#include "support/keep_sets.hpp"
#include "support/quantised_case.hpp"

namespace policy_quantised_test {

using namespace support;
using kvevict::dtype;
using kvevict::role;
namespace q = quantised_case;

namespace {

constexpr kvevict::budget twenty{.tokens_per_head = 20};
constexpr auto snapkv = kvevict::presets::snapkv({.window = 8, .pool = 1});
constexpr auto keydiff = kvevict::presets::keydiff({.recent = 8});

q::format const& format_of(char const* name) {
  for (q::format const& f : q::formats())
    if (std::string(f.name) == name) return f;
  FAIL(name);
  return q::formats().front();
}
batch const& input() {
  static batch const in = random_batch(5, {.Hq = 4, .H = 2, .D = q::D, .N = {40, 30}}, 0.4);
  return in;
}
template <class F> void with_format(q::format const& is, F f) {
  layouts::with_layout(layouts::layout::hnd, q::shape_of(cache_shape_of(input()), is), [&](auto& cache) {
    q::quantise(cache, is, 23);
    f(cache);
  });
}

/// The e4m3 code nearest to x.
q::byte nearest(double x) {
  q::byte best = 0;
  for (int i = 0; i < 256; ++i)
    if (std::abs(q::e4m3(static_cast<q::byte>(i)) - x) < std::abs(q::e4m3(best) - x)) best = static_cast<q::byte>(i);
  return best;
}

}  // namespace

TEST_CASE("a code or a scale that is no number is found by its token, and nothing is kept") {
  kvevict::host ctx;
  auto const rows = all_rows(input());
  auto const refuses = [&](char const* name, int at, std::vector<q::byte> const& bad) {
    CAPTURE(name);
    with_format(format_of(name), [&](auto& cache) {
      auto row = q::bytes_of(cache.view, *cache.view.find(role::k), 1, 1, 7);
      std::copy(bad.begin(), bad.end(), row.begin() + at);
      q::put_bytes(cache.view, *cache.view.find(role::k), 1, 1, 7, row);
      kvevict::keep_set keep;
      CHECK(refusal([&] { plan(ctx, keydiff, contents(cache.view), twenty, keep); }).find("sequence 1, head 1") !=
            std::string::npos);
      CHECK(keep.refused);
      CHECK(refusal([&] {
              plan(ctx, snapkv, prompt(cache.view, rows.queries()), twenty, keep);
            }).find("sequence 1, head 1") != std::string::npos);
    });
  };
  refuses("fp8_e4m3, a scale for all", 9, {0x7f});
  refuses("fp8_e5m2, a scale for all in memory", 9, {0xfc});
  refuses("i8, vLLM's scale behind the row", 64, {0x00, 0x00, 0xc0, 0x7f});
  refuses("q4_0", 18, {0x00, 0x7e});
}

TEST_CASE("an LSE of the keys before they were stored is accepted, one of another base or scale is not") {
  kvevict::host ctx;
  q::format const& is = format_of("fp8_e4m3, a scale for all");
  batch in = input();
  for (auto& l : in.layers)
    for (double& x : l.keys.data) x = static_cast<double>(static_cast<float>(x * 2));
  with_format(is, [&](auto& cache) {
    cache.for_each_slot([&](int b, int h, int t) {
      std::vector<q::byte> row;
      for (int d = 0; d < q::D; ++d)
        row.push_back(
            nearest(in.layers[static_cast<std::size_t>(b)].keys.at(
                        static_cast<std::size_t>(h), static_cast<std::size_t>(t), static_cast<std::size_t>(d)) /
                    static_cast<double>(q::tensor_scale)));
      q::put_bytes(cache.view, *cache.view.find(role::k), b, h, t, row);
    });
    auto const rows = all_rows(in);  // their LSE is that of the numbers
    auto const with_lse = [&](std::vector<float> const& lse) {
      return refusal([&] {
        plan(ctx, snapkv, prompt(cache.view, rows.queries()).with_lse(lse.data(), rows.lse_stride(), 1), twenty);
      });
    };
    CHECK(with_lse(rows.lse) == "");
    std::vector<float> base_two = rows.lse, less = rows.lse;
    for (float& x : base_two) x *= 1.4426950f;
    for (float& x : less) x -= 3;
    CHECK(with_lse(base_two).find("add up to") != std::string::npos);
    CHECK(with_lse(less).find("add up to") != std::string::npos);
  });
}

TEST_CASE("keys with scales of a page's channels are scored, but their tokens do not move") {
  layouts::cache_shape shape = cache_shape_of(input());
  shape.head_dim = q::D, shape.type = dtype::opaque, shape.page_size = 24;
  layouts::with_layout(layouts::layout::hnd, shape, [&](auto& cache) {
    cache.view.pages.page_size = 16;  // the rest of each page: 64 scales and 64 zero points
    auto& k = cache.view.components[0];
    k = kvevict::quantised::by_channel(k, dtype::u8, 16 * q::D, 20 * q::D);
    cache.view.component_count = 1;
    cache.view.pages.seq_stride = cache.view.pages.columns;
    reference::generator random(2);
    for (int b = 0; b < 2; ++b)
      for (int h = 0; h < 2; ++h)
        for (int t = 0; t < 24; ++t) {
          std::vector<q::byte> row(q::D);
          q::random_bytes(row.data(), q::D, random);
          q::put_bytes(cache.view, k, b, h, t, row);
          auto* const first = reinterpret_cast<q::byte*>(cache.view.row(k, b, h, t / 16 * 16));
          for (int d = 0; d < q::D && t % 16 == 0; ++d)
            q::put_f32(first + 16 * q::D + 4 * d, 0.01), q::put_f32(first + 20 * q::D + 4 * d, 128);
        }
    std::vector<std::int32_t> const lengths{24, 24};
    cache.view.lengths = {lengths.data(), 1, 0};
    kvevict::host ctx;
    CHECK(refusal([&] { plan(ctx, keydiff, contents(cache.view), twenty); }).find("plan: the cache") == 0);
    auto const keep = plan(ctx, keydiff, contents(cache.view.with_capability({.masked = true})), twenty);
    CHECK(keep(0, 0).size == 20);
    auto const before = cache.snapshot();
    CHECK(refusal([&] { compact(ctx, cache.view, keep); }).find("select::pages") != std::string::npos);
    CHECK(cache.snapshot() == before);
  });
}

}  // namespace policy_quantised_test
