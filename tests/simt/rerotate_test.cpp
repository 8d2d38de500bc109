// SPDX-License-Identifier: Apache-2.0
// Re-rotation on a device: the host's laws (support/rerotation.hpp), in every schedule.
#include <kvevict/cuda.cuh>

#include "support/rerotation.hpp"

#include "simt/device_cache.hpp"

namespace rerotate_test {

using namespace simt_test;
namespace laws = support::rerotation;
using layouts::layout;

namespace {

struct on_gpu {
  std::uint64_t schedule = 0;
  template <class Entry>
  std::string operator()(layouts::cache<Entry>& cache, kvevict::rope const& by, std::int32_t first) const {
    scheduled const s(schedule);
    device_cache<Entry> there(cache);
    kvevict::cuda::device ctx(default_stream());
    std::string const said = support::refusal([&] {
      rerotate(ctx, there.view, by, first);
      ctx.wait();
    });
    cache.restore(there.snapshot());
    return said;
  }
};

}  // namespace

TEST_CASE("a device turns keys to contiguous positions, to one rounding, and nothing else") {
  laws::closes_gaps(on_gpu{3}, {layout::nhd, layout::x_packed, layout::pointers, layout::head_pages, layout::bnsh});
}
TEST_CASE("on a device products with later queries depend on distances alone") {
  laws::keeps_relative_products(on_gpu{});
}
TEST_CASE("a device never writes shared prefixes") { laws::leaves_prefixes(on_gpu{5}); }
TEST_CASE("a device turns rows in common once") { laws::turns_common_rows_once(on_gpu{}); }
TEST_CASE("a device turns stacks whose layers have their positions in common") { laws::turns_stacks(on_gpu{}); }
TEST_CASE("a device refuses what the host does, in its words") { laws::refuses(on_gpu{}); }

}  // namespace rerotate_test
