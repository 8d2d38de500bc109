// SPDX-License-Identifier: Apache-2.0
// Kept keys at contiguous positions, against the numbers of another implementation.
#include <kvevict/kvevict.hpp>

#include "support/batch_cache.hpp"
#include "support/catch.hpp"
#include "support/golden.hpp"
#include "support/keep_sets.hpp"

namespace rerotate_test {

using namespace support;

TEST_CASE("golden: rerotate, keys that were kept come to contiguous positions") {
  auto const file = golden::load("rerotate");
  auto const in = golden::inputs().layer;
  kvevict::rope const by{10000};
  auto const frequencies = golden::as_tensor(file, "inv_freq").data;
  REQUIRE(2 * frequencies.size() == in.keys.width);
  for (std::size_t i = 0; i < frequencies.size(); ++i)
    CHECK(by.frequency(static_cast<std::int32_t>(i), static_cast<std::int32_t>(in.keys.width)) ==
          Approx(frequencies[i]).epsilon(1e-7));
  batch const b = batch_of(in);
  with_cache(b, [&](auto& cache) {
    CAPTURE(cache.name());
    std::vector<std::vector<std::int32_t>> rows;
    auto const kept = golden::value<std::vector<reference::index_rows>>(file, "indices");  // (1,H,n)
    for (auto const& head : kept.at(0)) rows.emplace_back(head.begin(), head.end());
    kvevict::host ctx;
    auto view = cache.view;
    view.components[0].turned_by = kvevict::rotation::rope;
    auto const done = kvevict::compact(ctx, view, keep_of(view, rows));
    kvevict::rerotate(ctx, done.view(view), by);
    auto const want = golden::cube(file, "keys_out");
    REQUIRE(want.tokens == rows[0].size());
    for (std::size_t h = 0; h < want.heads; ++h)
      for (std::size_t t = 0; t < want.tokens; ++t)
        for (std::size_t d = 0; d < want.width; ++d) {
          double const got = static_cast<double>(
              cache.get(view.components[0], 0, static_cast<int>(h), static_cast<int>(t), static_cast<int>(d)));
          CHECK(std::abs(got - want.at(h, t, d)) < 2e-6);
        }
  });
}

}  // namespace rerotate_test
