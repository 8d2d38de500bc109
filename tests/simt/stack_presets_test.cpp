// SPDX-License-Identifier: Apache-2.0
// Presets whose layers share their budget on a device: the case of unit/policy/stack_presets_test.cpp.
#include <kvevict/cuda.cuh>

#include "simt/device_stack.hpp"
#include "support/batch_cache.hpp"
#include "support/stack_presets.hpp"

namespace stack_presets_test {

using namespace simt_test;
using namespace support;
namespace cuda = kvevict::cuda;

TEST_CASE("a device divides over a stack of layers as a naive division does") {
  for (std::uint64_t seed = 1; seed <= 2; ++seed) {
    batch const in = stack_presets::random_stack(seed);
    attention const rows = all_rows(in);
    stack of(in, stack_presets::L, placed::own_tables, true);
    device_stack there(of);
    kvevict::budget const ask{.tokens_per_head = stack_presets::budget, .layer_count = stack_presets::L};
    stack_presets::for_each([&](char const* name, auto const& policy, auto expected) {
      CAPTURE(seed, name);
      cuda::device ctx(default_stream());
      device_memory memory;
      auto const view = there.whole();
      auto const queries = on_device_rows(memory, rows.queries(), view.sequences());
      cuda::keep_set keep;
      plan(ctx, policy, kvevict::prompt(view, queries), ask, keep);
      stack_presets::check(in, keep.read(ctx), expected);
    });
  }
}

}  // namespace stack_presets_test
