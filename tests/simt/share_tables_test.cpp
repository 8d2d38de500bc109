// SPDX-License-Identifier: Apache-2.0
// Budgets from fixed tables on a device: the body of unit/policy/share_tables_test.cpp.
#include <kvevict/cuda.cuh>

#include "simt/device_cache.hpp"
#include "support/share_tables.hpp"

namespace share_tables_test {

using namespace simt_test;
using namespace support;
namespace cuda = kvevict::cuda;

TEST_CASE("a device follows a table of layers and heads, as the host does") {
  for (std::uint64_t seed = 1; seed <= 16; ++seed) {
    cuda::device ctx(default_stream());
    device_memory memory;
    share_tables::check(
        seed, [&](auto const& x) { return memory.put(x); },
        [&](auto const& policy, auto const& view, kvevict::budget const& b) {
          cuda::keep_set keep;
          plan(ctx, policy, kvevict::contents(view), b, keep);
          return keep.read(ctx);
        });
  }
}

TEST_CASE("a device refuses shares below 0 or beyond a million, in the host's words") {
  device_memory memory;
  share_tables::check_range([&](auto const& x) { return memory.put(x); },
                            [&](auto const& policy, auto const& view, kvevict::budget const& b) {
                              return refusal([&] {
                                cuda::device ctx(default_stream());
                                cuda::keep_set keep;
                                plan(ctx, policy, kvevict::contents(view), b, keep);
                                keep.read(ctx);
                              });
                            });
}

}  // namespace share_tables_test
