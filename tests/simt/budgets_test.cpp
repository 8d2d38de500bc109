// SPDX-License-Identifier: Apache-2.0
// Budgets over turns, layers and ragged heads on a device: the body of laws/budgets_test.cpp.
#include <kvevict/cuda.cuh>

#include "simt/device_cache.hpp"
#include "support/turns.hpp"

namespace budgets_test {

using namespace simt_test;
namespace turns = support::turns;
namespace cuda = kvevict::cuda;

TEST_CASE("budgets on a device are exact over 20 turns, in every form of the layers and with ragged heads") {
  for (std::uint64_t seed = 1; seed <= 2; ++seed)
    for (turns::form const how : turns::forms)
      turns::for_each_policy([&](char const* name, auto const& policy) {
        if (seed > 1 && std::string_view(name).find("pyramid") == std::string_view::npos) return;
        CAPTURE(name);
        device_memory memory;
        cuda::device ctx(default_stream());
        turns::run(
            policy, seed, how, [&](std::vector<std::int32_t> const& x) { return memory.put(x); },
            [&](kvevict::layer_view<> const& view, kvevict::budget const& b) {
              cuda::keep_set keep;
              plan(ctx, policy, kvevict::contents(view), b, keep);
              return keep.read(ctx);
            });
      });
}

}  // namespace budgets_test
