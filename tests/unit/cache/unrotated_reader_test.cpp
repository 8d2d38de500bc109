// SPDX-License-Identifier: Apache-2.0
// Keys before rotation, read from every layout, against long double: what the cached, rounded key is when it is turned
// back by its own position.
#include <kvevict/cache/unrotated_reader.hpp>
#include <kvevict/kernels/rope_steps.hpp>

#include "support/catch.hpp"
#include "support/layouts.hpp"
#include "support/ropes.hpp"

namespace cache_unrotated_reader_test {

using namespace kvevict;
using reference::real;
using support::known_rope;

namespace {

constexpr std::int32_t D = 24;

struct worked_out {
  std::vector<std::uint64_t> steps;
  turning by;
  explicit worked_out(known_rope const& r) : steps(static_cast<std::size_t>(r.width / 2)) {
    host ctx;
    kernels::rope_steps(ctx, r.ours, r.width, steps.data());
    by = {steps.data(), r.width, r.ours.pairs, static_cast<float>(1 / r.ours.amplitude())};
  }
};

layouts::cache_shape shape_of(dtype type) {
  layouts::cache_shape s;
  s.lengths = {37, 5}, s.heads = 2, s.head_dim = D, s.type = type;
  return s;
}
/// Up to 10⁶, ascending.
int position_of(int b, int h, int t) {
  return t == 0 ? 0 : 3 * t + 27 * t * t * t / (t > 30 ? 2 : 1) % 960000 + 37 * b + h;
}

template <class Cache> std::vector<real> key_of(Cache const& cache, component const& c, int b, int h, int t) {
  std::vector<real> out;
  for (int d = 0; d < c.width(); ++d) out.push_back(static_cast<real>(cache.get(c, b, h, t, d)));
  return out;
}
/// Length of the pair that element d is of, or of the element itself.
double length_of(known_rope const& r, std::vector<real> const& x, int d) {
  if (d >= r.width) return static_cast<double>(std::abs(x[static_cast<std::size_t>(d)]));
  int const other = r.interleaved() ? d ^ 1 : d < r.width / 2 ? d + r.width / 2 : d - r.width / 2;
  return static_cast<double>(std::hypot(x[static_cast<std::size_t>(d)], x[static_cast<std::size_t>(other)]));
}
template <class Reader> float element(Reader const& reader, int t, int d) {
  float x[row_chunk];
  reader.read(t, d - d % row_chunk, x);
  return x[d % row_chunk];
}
float rounded(dtype type, real x) {
  auto const y = static_cast<float>(x);
  return type == dtype::f16 ? to_float(from_float<f16>(y)) : type == dtype::bf16 ? to_float(from_float<bf16>(y)) : y;
}

}  // namespace

TEST_CASE("a key before rotation is the cached one turned back, in every layout and type, for every rope") {
  std::vector<float> vector;
  for (int d = 0; d < D; ++d) vector.push_back(static_cast<float>(std::cos(d * d)));
  double worst = 0;
  for (known_rope const& r : support::small_ropes()) {
    worked_out const rope(r);
    for (dtype const type : {dtype::f32, dtype::f16, dtype::bf16}) {
      std::vector<float> products;
      layouts::for_each_layout(shape_of(type), [&](auto& cache) {
        CAPTURE(r.name, r.width, r.interleaved(), cache.name(), static_cast<int>(type));
        component const& k = *cache.view.find(role::k);
        cache.fill(role::position, [](int b, int h, int t, int) { return position_of(b, h, t); });
        cache.for_each_slot([&](int b, int h, int t) {
          std::vector<real> x;
          for (int d = 0; d < D; ++d) x.push_back(std::sin(static_cast<real>(b + 3 * h + 7 * t + 11 * d)));
          auto const y = r.turned(x, position_of(b, h, t));
          for (int d = 0; d < D; ++d) cache.set(k, b, h, t, d, static_cast<float>(y[static_cast<std::size_t>(d)]));
        });
        std::size_t wrong = 0;
        std::vector<float> here;
        cache.for_each_slot([&](int b, int h, int t) {
          unrotated_reader const reader(cache.view, k, rope.by, b, h);
          auto const cached = key_of(cache, k, b, h, t), want = r.turned_back(cached, position_of(b, h, t));
          std::vector<real> got;
          for (int first = 0; first < D; first += row_chunk) {
            float chunk[row_chunk];
            reader.read(t, first, chunk);
            for (float const x : chunk) got.push_back(static_cast<real>(x));
          }
          real dot = 0;
          auto const again = r.turned(got, position_of(b, h, t));
          for (int d = 0; d < D; ++d) {
            auto const i = static_cast<std::size_t>(d);
            double const error = static_cast<double>(std::abs(got[i] - want[i])), length = length_of(r, want, d);
            if (length > 0) worst = std::max(worst, error / length);
            wrong += !(error <= 4e-7 * length);
            // turned forth again it is the cached key, to one rounding of a number that no type holds more exactly
            wrong += rounded(type, again[i]) != static_cast<float>(cached[i]) &&
                     !(std::abs(again[i] - cached[i]) <= 6e-7 * length_of(r, cached, d));
            dot += want[i] * static_cast<real>(vector[i]);
          }
          here.push_back(reader.dot(t, vector.data()));
          wrong += !(std::abs(static_cast<double>(here.back() - dot)) < 1e-5);
          wrong += reader.width() != D || reader.position(t) != position_of(b, h, t);
        });
        CHECK(wrong == 0);
        if (products.empty()) products = here;
        CHECK(here == products);  // to the bit
      });
    }
  }
  std::printf("largest error of an element: %.3g of its pair's length\n", worst);
}

TEST_CASE("what nothing turned is read as it lies") {
  layouts::with_layout(layouts::layout::x_packed, shape_of(dtype::f16), [](auto& cache) {
    cache.fill([](int b, int h, int t, int d) { return std::sin(b + 3 * h + 7 * t + 11 * d); },
               [](int, int, int, int) { return 0; });
    component const& k = *cache.view.find(role::k);
    std::vector<float> const vector(D, 0.7f);
    std::size_t wrong = 0;
    cache.for_each_slot([&](int b, int h, int t) {
      row_reader const plain(cache.view, k, b, h);
      unrotated_reader const reader(cache.view, k, turning{}, b, h);
      for (int d = 0; d < D; ++d) wrong += plain(t, d) != element(reader, t, d);
      wrong += plain.dot(t, vector.data()) != reader.dot(t, vector.data());
    });
    CHECK(wrong == 0);
  });
}

TEST_CASE("where no positions are carried, slots count them from a first one on") {
  layouts::cache_shape s = shape_of(dtype::f32);
  s.positions = 0;
  known_rope const r = support::small_ropes()[0];
  worked_out rope(r);
  rope.by.first_position = 4321;
  layouts::with_layout(layouts::layout::hnd, s, [&](auto& cache) {
    cache.fill(role::k, [](int, int, int t, int d) { return std::sin(7 * t + 11 * d); });
    component const& k = *cache.view.find(role::k);
    cache.for_each_slot([&](int b, int h, int t) {
      unrotated_reader const reader(cache.view, k, rope.by, b, h);
      REQUIRE(reader.position(t) == 4321 + t);
      auto const want = r.turned_back(key_of(cache, k, b, h, t), 4321 + t);
      for (int d = 0; d < D; ++d)
        REQUIRE(std::abs(static_cast<double>(element(reader, t, d) - want[static_cast<std::size_t>(d)])) < 1e-6);
    });
  });
}

TEST_CASE("keys whose rotation is opaque or unsaid, or whose rope is missing, are refused") {
  component c;
  c.rows.run_bytes = 64;
  rope const r{10000};
  auto const refused = [&](rotation by, rope const& given) {
    try {
      contract::expect_turned("mine", c.turned(by), given);
    } catch (contract_violation const& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  CHECK(refused(rotation::rope, r).empty());
  CHECK(refused(rotation::none, {}).empty());
  CHECK_THAT(refused(rotation::opaque, r), Catch::Contains("mine: component k is turned by something opaque") &&
                                               Catch::Contains("keeps dot products and no channels"));
  CHECK_THAT(refused(rotation::unsaid, r), Catch::Contains("does not say what turned it; set component::turned_by"));
  CHECK_THAT(refused(rotation::rope, {}),
             Catch::Contains("nothing says by which") && Catch::Contains("scores by with_rope"));
  rope wide = r;
  wide.width = 18;
  CHECK_THAT(refused(rotation::rope, wide), Catch::Contains("turns 18 elements of rows of 16"));
}

TEST_CASE("quantised keys are decoded, then turned back, by every rope") {
  for (known_rope const& r : support::small_ropes()) {
    CAPTURE(r.name, r.width, r.interleaved());
    worked_out const rope(r);
    std::vector<std::int8_t> codes;
    for (int i = 0; i < 9 * D; ++i) codes.push_back(static_cast<std::int8_t>(i * 37 % 255 - 127));
    layer_view<> view;
    std::int32_t const length = 9;
    view.pages.sequences = view.pages.heads = view.pages.columns = 1, view.pages.page_size = 9;
    view.lengths = {&length, 1, 0};
    component c;
    c.rows = {reinterpret_cast<std::byte*>(codes.data()), 0, 1, 9 * D, 0, D, 0, D, 1};
    view = view.with(quantised::by_tensor(c, dtype::i8, 0.03f).turned(rotation::rope));
    turning by = rope.by;
    by.first_position = 777777;
    unrotated_reader const reader(view, view.components[0], by, 0, 0);
    REQUIRE(reader.width() == D);
    for (int t = 0; t < 9; ++t) {
      std::vector<real> x;
      for (int d = 0; d < D; ++d) x.push_back(0.03L * codes[static_cast<std::size_t>(t * D + d)]);
      auto const want = r.turned_back(x, 777777 + t);
      for (int d = 0; d < D; ++d)
        CHECK(std::abs(static_cast<double>(element(reader, t, d) - want[static_cast<std::size_t>(d)])) < 4e-6);
    }
  }
}

}  // namespace cache_unrotated_reader_test
