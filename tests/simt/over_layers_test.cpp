// SPDX-License-Identifier: Apache-2.0
// One threshold over a stack on a device: the body of unit/policy/over_layers_test.cpp.
#include <kvevict/cuda.cuh>

#include "simt/device_cache.hpp"
#include "support/stack_scores.hpp"

namespace over_layers_test {

using namespace simt_test;
using namespace support;
namespace cuda = kvevict::cuda;

TEST_CASE("a device keeps what one threshold over a stack keeps, as sorting all its tokens") {
  for (std::uint64_t seed = 1; seed <= 24; ++seed) {
    cuda::device ctx(default_stream());
    device_memory memory;
    stack_scores::check(
        seed, [&](auto const& x) { return memory.put(x); },
        [&](auto const& policy, auto const& view, kvevict::budget const& b) {
          cuda::keep_set keep;
          plan(ctx, policy, kvevict::contents(view), b, keep);
          return keep.read(ctx);
        });
  }
}

}  // namespace over_layers_test
