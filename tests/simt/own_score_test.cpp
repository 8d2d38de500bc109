// SPDX-License-Identifier: Apache-2.0
// The example's own score, in its own text, on the host and on a device: the same tokens stay.
#include <kvevict/cuda.cuh>
#include <kvevict/kvevict.hpp>

#include "../../examples/small_keys.hpp"
#include "simt/device_cache.hpp"
#include "support/catch.hpp"

namespace own_score_test {

using namespace simt_test;

TEST_CASE("a score of one's own runs on the host and on a device from one text") {
  constexpr auto mine = kvevict::policy{small_keys{}, kvevict::protect{.sinks = 4, .recent = 6}};
  layouts::cache_shape shape;
  shape.lengths = {300, 9, 0, 41}, shape.heads = 2, shape.type = kvevict::dtype::f16;
  for (layouts::layout const l : {layouts::layout::nhd, layouts::layout::x_packed, layouts::layout::head_pages})
    layouts::with_layout(l, shape, [&](auto& cache) {
      CAPTURE(cache.name());
      using entry = typename std::decay_t<decltype(cache.view)>::table_entry;
      reference::generator random(5);
      cache.fill([&](int, int, int, int) { return random.normal(); }, [](int, int, int, int) { return 0.0f; });
      kvevict::host host;
      auto const want = kvevict::plan(host, mine, kvevict::contents(cache.view), {.tokens_per_head = 20});
      device_cache<entry> there(cache);
      kvevict::cuda::device ctx(default_stream());
      auto const got = kvevict::plan(ctx, mine, kvevict::contents(there.view), {.tokens_per_head = 20}).read(ctx);
      REQUIRE(got.lengths == want.lengths);
      std::int64_t row = 0;
      for (std::int32_t b = 0; b < want.sequences; ++b)
        for (std::int32_t h = 0; h < want.heads; ++h, ++row) {
          auto const x = got(b, h), y = want(b, h);
          CHECK(std::vector<std::int32_t>(x.begin(), x.end()) == std::vector<std::int32_t>(y.begin(), y.end()));
          CHECK(static_cast<std::int32_t>(y.size) == std::min(20, want.lengths[static_cast<std::size_t>(row)]));
        }
    });
}

}  // namespace own_score_test
