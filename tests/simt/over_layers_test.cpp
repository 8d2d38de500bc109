// SPDX-License-Identifier: Apache-2.0
// One threshold over a stack on a device: the body of unit/policy/over_layers_test.cpp.
#include <kvevict/cuda.cuh>

#include "simt/device_stack.hpp"
#include "support/stack_prefixes.hpp"
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

TEST_CASE("on a device, of layers whose prefixes differ each protects its own") {
  stack host(stack_prefixes::input(), stack_prefixes::L, placed::own_tables, true);
  device_stack there(host);
  device_memory memory;
  auto const view = there.whole().with_read_only(memory.put(stack_prefixes::read_only));
  cuda::device ctx(default_stream());
  stack_prefixes::check(memory.put(stack_prefixes::scores()), [&](auto const& policy) {
    cuda::keep_set keep;
    plan(ctx, policy, kvevict::contents(view),
         {.tokens_per_head = stack_prefixes::budget, .layer_count = stack_prefixes::L}, keep);
    return keep.read(ctx);
  });
}

TEST_CASE("on a device, a layer is measured by its own prefix and length, and one that is kept whole by none") {
  device_memory memory;
  cuda::device ctx(default_stream());
  stack_prefixes::check_sound(memory.put(stack_prefixes::scores()),
                              [&](auto const& policy, stack& of, std::vector<std::int32_t> const& prefixes,
                                  std::vector<std::int32_t> const& budgets, std::vector<std::uint8_t> const& whole) {
                                device_stack there(of);
                                cuda::keep_set keep;
                                plan(ctx, policy, kvevict::contents(there.whole().with_read_only(memory.put(prefixes))),
                                     {.layer_count = of.L,
                                      .per_sequence = memory.put(budgets),
                                      .whole = whole.empty() ? nullptr : memory.put(whole)},
                                     keep);
                                return keep.read(ctx);
                              });
}

TEST_CASE("on a device only the layer whose prefix is beyond the budget is at fault, and the others are divided") {
  stack host(stack_prefixes::input(), stack_prefixes::L, placed::own_tables, true);
  device_stack there(host);
  device_memory memory;
  cuda::device ctx(default_stream());
  stack_prefixes::check_outcomes(
      memory.put(stack_prefixes::scores()),
      [&](auto const& policy, std::vector<std::int32_t> const& prefixes, std::vector<std::uint8_t> const& whole) {
        cuda::keep_set keep;
        cuda::outcomes found;
        plan(ctx, policy, kvevict::contents(there.whole().with_read_only(memory.put(prefixes))),
             {.tokens_per_head = stack_prefixes::budget, .layer_count = stack_prefixes::L, .whole = memory.put(whole)},
             keep, found);
        return std::pair{keep.read(ctx), found.read(ctx)};
      });
}

}  // namespace over_layers_test
