// SPDX-License-Identifier: Apache-2.0
// Several scores with shares of one budget on a device: the bodies of unit/policy/shares_test.cpp.
#include <kvevict/cuda.cuh>

#include "simt/device_cache.hpp"
#include "support/shares.hpp"

namespace shares_test {

using namespace simt_test;
using namespace support;
namespace cuda = kvevict::cuda;

TEST_CASE("a device keeps what a naive order of the candidates keeps, share by share") {
  for (std::uint64_t seed = 1; seed <= 12; ++seed) {
    cuda::device ctx(default_stream());
    device_memory memory;
    shares::check(
        seed, [&](auto const& x) { return memory.put(x); },
        [&](auto const& policy, auto const& view, kvevict::budget const& b) {
          cuda::keep_set keep;
          plan(ctx, policy, kvevict::contents(view), b, keep);
          return keep.read(ctx);
        });
  }
}

TEST_CASE("a device keeps whole pages, one set of tokens and what is seen, share by share, as the host does") {
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    shares::beside const cases(seed);
    kvevict::host host;
    cuda::device ctx(default_stream());
    std::deque<std::vector<std::byte>> here;
    device_memory there;
    std::deque<kvevict::keep_set> want;
    cases.each([&](auto const& x) { return together::keep_bytes(here, x); },
               [&](char const*, auto const& policy, auto const& view, auto const& ask, auto const& sees) {
                 want.push_back(plan(host, policy, kvevict::contents(view).with_visibility(sees), ask));
               });
    cases.each([&](auto const& x) { return there.put(x); },
               [&](char const* what, auto const& policy, auto const& view, auto const& ask, auto const& sees) {
                 CAPTURE(seed, what);
                 auto const e = kvevict::contents(view).with_visibility(sees);
                 auto const tried = cuda::device::try_out(default_stream(), [&](cuda::device& dry) {
                   cuda::keep_set none;
                   plan(dry, policy, e, ask, none);
                 });
                 CHECK(tried.scratch_bytes > 0);
                 cuda::keep_set keep;
                 plan(ctx, policy, e, ask, keep);
                 auto const got = keep.read(ctx);
                 CHECK(got.row_begin == want.front().row_begin);
                 CHECK(got.tokens == want.front().tokens);
                 want.pop_front();
               });
  }
}

}  // namespace shares_test
