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
TEST_CASE("a device refuses more rows than a launch has blocks for, which had left most of them as they were") {
  std::vector<float> pool(2 * 16 * 8 * 8);
  kvevict::pages::sizes const s{.pages = 2, .page_size = 16, .heads = 8, .head_dim = 8};
  kvevict::layer_view<> view;
  std::int32_t const length = 0;  // a dry run reads nothing
  view.lengths = {&length, 0, 0};
  view = view.with(kvevict::pages::nhd(kvevict::role::k, pool.data(), s).turned(kvevict::rotation::rope));
  std::vector<std::int32_t> positions(2 * 16);
  view = view.with(kvevict::pages::nhd(kvevict::role::position, positions.data(),
                                       {.pages = 2, .page_size = 16, .head_dim = 1, .type = kvevict::dtype::i32}));
  for (std::int32_t const sequences : {4095, 4096, 10240, 1 << 17}) {
    view.pages = kvevict::pages::dense(positions.data(), sequences, 1 << 16, s);  // 2²⁰ tokens
    std::int64_t blocks = 0;
    std::string const said = support::refusal([&] {
      auto const run = kvevict::cuda::device::try_out(
          default_stream(), [&](kvevict::cuda::device& dry) { rerotate(dry, view, kvevict::rope{10000}); });
      for (auto const& step : run.steps) blocks = std::max(blocks, std::int64_t{step.grid.x});
    });
    CAPTURE(sequences, said, blocks);
    if (sequences < 4096)
      CHECK((said.empty() && blocks == std::int64_t{sequences} * 8 << 16));
    else
      CHECK(support::contains(said, "rows with room for 1048576 tokens are more than a device turns in one launch"));
  }
}

}  // namespace rerotate_test
