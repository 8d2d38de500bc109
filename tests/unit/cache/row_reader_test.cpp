// SPDX-License-Identifier: Apache-2.0
// Elements of rows as floats, in every layout and type.
#include <kvevict/cache/row_reader.hpp>

#include <cmath>

#include "support/catch.hpp"
#include "support/layouts.hpp"

namespace cache_row_reader_test {

using namespace kvevict;

TEST_CASE("a row reader gives the cache's elements, one by one, in chunks and multiplied by a vector") {
  for (dtype const type : {dtype::f32, dtype::f16, dtype::bf16})
    for (std::int32_t const D : {8, 24}) {
      layouts::cache_shape shape;
      shape.lengths = {21, 5}, shape.heads = 2, shape.head_dim = D, shape.type = type;
      std::vector<float> vector, products;
      for (int d = 0; d < D; ++d) vector.push_back(std::cos(static_cast<float>(d)));
      layouts::for_each_layout(shape, [&](auto& cache) {
        CAPTURE(cache.name(), D, name_of(type));
        cache.fill([](int b, int h, int t, int d) { return std::sin(b + 3 * h + 7 * t + 11 * d); },
                   [](int b, int h, int t, int d) { return std::cos(b + 3 * h + 7 * t + 11 * d); });
        std::size_t wrong = 0;
        std::vector<float> here;
        for (role const what : {role::k, role::v})
          for (std::int32_t const cut : {0, 3}) {  // a row that is no whole number of chunks
            component c = *cache.view.find(what);
            if (cut != 0 && c.rows.n_runs != 1) continue;
            c.rows.run_bytes -= cut * size_of(type);
            cache.for_each_slot([&](int b, int h, int t) {
              row_reader const x(cache.view, c, b, h);
              REQUIRE(x.width() == D - cut);
              double dot = 0;
              for (std::int32_t d = 0; d < D - cut; ++d) {
                float const want = cache.get(c, b, h, t, d);
                wrong += x(t, d) != want;
                dot += static_cast<double>(want) * static_cast<double>(vector[static_cast<std::size_t>(d)]);
              }
              for (std::int32_t first = 0; first < D - cut; first += row_chunk) {
                float chunk[row_chunk];
                x.read(t, first, chunk);
                for (std::int32_t i = 0; i < row_chunk; ++i)
                  wrong += chunk[i] != (first + i < D - cut ? cache.get(c, b, h, t, first + i) : 0.0f);
              }
              wrong += !(std::abs(static_cast<double>(x.dot(t, vector.data())) - dot) < 1e-5);
              if (cut == 0) here.push_back(x.dot(t, vector.data()));
            });
          }
        CHECK(wrong == 0);
        if (products.empty()) products = here;
        CHECK(here == products);  // to the bit
      });
    }
}

TEST_CASE("what cannot be read as floats is refused by name") {
  layouts::with_layout(layouts::layout::nhd, {}, [](auto& cache) {
    CHECK_THROWS_WITH(readable("mine", cache.view, role::state),
                      Catch::Contains("mine: the cache has no component state"));
    CHECK_THROWS_WITH(readable("mine", cache.view, role::position),
                      Catch::Contains("mine: component position has type i32"));
    CHECK(&readable("mine", cache.view, role::v) == cache.view.find(role::v));
  });
}

}  // namespace cache_row_reader_test
