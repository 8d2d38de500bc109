// SPDX-License-Identifier: Apache-2.0
// Layer budgets by entropy on a device: the body of unit/policy/layer_entropy_test.cpp.
#include <kvevict/cuda.cuh>

#include "simt/device_cache.hpp"
#include "support/layer_entropy.hpp"

namespace layer_entropy_test {

using namespace simt_test;
using namespace support;
namespace cuda = kvevict::cuda;

TEST_CASE("a device divides budget between layers by the entropy of their scores, as the host does") {
  for (std::uint64_t seed = 1; seed <= 16; ++seed)
    for (bool const adaptive : {false, true}) {
      cuda::device ctx(default_stream());
      device_memory memory;
      layer_entropy::check(
          seed, adaptive, [&](auto const& x) { return memory.put(x); },
          [&](auto const& policy, auto const& view, kvevict::budget const& b) {
            cuda::keep_set keep;
            plan(ctx, policy, kvevict::contents(view), b, keep);
            return keep.read(ctx);
          });
    }
}

}  // namespace layer_entropy_test
