// SPDX-License-Identifier: Apache-2.0
#include <kvevict/kernels/squared_norms.hpp>
#include <kvevict/threads.hpp>

#include "support/allocations.hpp"
#include "support/attention_case.hpp"
#include "support/catch.hpp"

namespace kernels_squared_norms_test {

using namespace kvevict;
using reference::attention_case;
using reference::attention_shape;

namespace {

attention_shape shape_of(std::int32_t head_dim, dtype type) {
  attention_shape s;
  s.cache.lengths = {1100, 3, 0, 50}, s.cache.heads = 2, s.cache.head_dim = head_dim, s.cache.type = type;
  return s;
}

}  // namespace

TEST_CASE("squared norms of keys and values in every layout") {
  threads two(2);
  host ctx(two.as_executor(0));
  for (dtype const type : {dtype::f32, dtype::f16, dtype::bf16})
    for (std::int32_t const D : {8, 24, 80}) {
      attention_case a(shape_of(D, type));
      std::vector<float> first;
      layouts::for_each_layout(a.shape.cache, [&](auto& cache) {
        a.fill(cache);
        for (role const what : {role::v, role::k}) {
          component const& c = *cache.view.find(what);
          kernels::squared_norms(ctx, cache.view, c, a.out());
          double worst = 0;
          for (std::size_t r = 0; r < a.rows.size(); ++r) {
            auto const x = cache.read(c, a.rows[r].sequence, a.rows[r].head);
            for (std::size_t j = 0; j < static_cast<std::size_t>(a.rows[r].tokens); ++j) {
              double want = 0;
              for (std::size_t d = 0; d < static_cast<std::size_t>(D); ++d)
                want += double{x[j * static_cast<std::size_t>(D) + d]} * double{x[j * static_cast<std::size_t>(D) + d]};
              worst = std::max(
                  worst, std::abs(double{a.values[static_cast<std::size_t>(a.begin[r]) + j]} - want) / (want + 1e-9));
            }
          }
          CAPTURE(cache.name(), D, name_of(type));
          CHECK(worst < 2e-6);
        }
        if (first.empty()) first = a.values;
        CHECK(a.values == first);  // no bit depends on the layout
      });
    }
}

TEST_CASE("squared norms leave inactive rows alone, need no scratch and refuse other types") {
  host ctx;
  attention_case a(shape_of(16, dtype::f32));
  a.rows[0].active = false;
  layouts::with_layout(layouts::layout::nhd, a.shape.cache, [&](auto& cache) {
    a.fill(cache);
    auto const before = allocations();
    kernels::squared_norms(ctx, cache.view, *cache.view.find(role::k), a.out());
    CHECK(allocations() == before);
    CHECK(a.values[0] == -7.0f);
    CHECK(a.values[1100] != -7.0f);
    CHECK_THROWS_WITH(kernels::squared_norms(ctx, cache.view, *cache.view.find(role::position), a.out()),
                      Catch::Contains("i32"));
  });
}

}  // namespace kernels_squared_norms_test
