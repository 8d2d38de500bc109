// SPDX-License-Identifier: Apache-2.0
// Rows that share a budget and see unequal parts of their past on a device: the body of
// unit/policy/hidden_tokens_test.cpp.
#include <kvevict/cuda.cuh>

#include "simt/device_cache.hpp"
#include "support/hidden_tokens.hpp"

namespace hidden_tokens_test {

using namespace simt_test;
using namespace support;
namespace cuda = kvevict::cuda;

TEST_CASE("on a device, a budget that rows share goes to what they see, and all of it") {
  for (std::uint64_t seed = 1; seed <= 12; ++seed) {
    cuda::device ctx(default_stream());
    device_memory memory;
    hidden_tokens::check(
        seed, [&](auto const& x) { return memory.put(x); },
        [&](auto const& policy, auto const& view, kvevict::visibility const& sees, kvevict::budget const& b) {
          cuda::keep_set keep;
          plan(ctx, policy, kvevict::contents(view).with_visibility(sees), b, keep);
          return keep.read(ctx);
        });
  }
}

TEST_CASE("on a device, rows that must keep equally many do, and sinks that are lost are in no page") {
  cuda::device ctx(default_stream());
  device_memory memory;
  auto const put = [&](auto const& x) { return memory.put(x); };
  auto const planned = [&](auto const& policy, auto const& view, kvevict::visibility const& sees,
                           kvevict::budget const& b) {
    cuda::keep_set keep;
    plan(ctx, policy, kvevict::contents(view).with_visibility(sees), b, keep);
    return keep.read(ctx);
  };
  hidden_tokens::check_counts(put, planned);
  hidden_tokens::check_lost_sinks(put, planned);
}

}  // namespace hidden_tokens_test
