// SPDX-License-Identifier: Apache-2.0
// Stacks whose layers have one row of positions a token, on a device: the bodies of
// unit/apply/common_positions_test.cpp.
#include <kvevict/cuda.cuh>

#include "simt/device_cache.hpp"
#include "support/common_positions.hpp"

namespace common_positions_test {

using namespace simt_test;
using namespace support;
namespace common = support::common_positions;
namespace cuda = kvevict::cuda;

namespace {

/// Memory 0 is the pool.
kvevict::layer_view<> on_device_view(device_memory& memory, common::cache& c) {
  auto v = c.view();
  std::byte* const pool = memory.put(c.pool);
  for (std::int32_t i = 0; i < v.component_count; ++i) {
    std::byte*& base = v.components[static_cast<std::size_t>(i)].rows.base;
    base = pool + (base - c.pool.data());
  }
  if (v.pages.entries != nullptr) v.pages.entries = memory.put(c.table);
  v.lengths.data = memory.put(c.lengths);
  return v;
}

common::outcome compacted_on_device(common::cache c, kvevict::keep_set const& keep, kvevict::compaction mode) {
  device_memory memory;
  auto const view = on_device_view(memory, c);
  cuda::device ctx(default_stream());
  cuda::keep_set there;
  there.assign(ctx, keep);
  cuda::compacted<std::int32_t> done;
  common::outcome out;
  out.said = refusal([&] {
    compact(ctx, view, there, mode, done);
    done.wait(ctx);
  });
  out.pool = memory.read(0);
  if (out.said.empty()) out.bytes = done.bytes_moved();
  return out;
}

}  // namespace

TEST_CASE("on a device positions common to layers move once, with the K and V of all of them") {
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    scheduled const order(seed);
    common::check(seed, compacted_on_device);
  }
}

TEST_CASE("on a device layers that share positions keep one set, too") {
  common::refusals(compacted_on_device, [](auto const& policy, common::cache& c) {
    device_memory memory;
    auto const view = on_device_view(memory, c);
    cuda::device ctx(default_stream());
    cuda::keep_set keep;
    return refusal([&] {
      plan(ctx, policy, kvevict::contents(view), kvevict::budget{.tokens_per_head = 6, .layer_count = 3}, keep);
      ctx.wait();
    });
  });
}

TEST_CASE("on a device one slot of each row is replaced in all layers that share positions, in the host's words") {
  common::cache c(common::shapes[4]);
  device_memory memory;
  auto const view = on_device_view(memory, c);
  std::vector<std::vector<std::int32_t>> rows;
  common::cache::each_row([&](std::int32_t b, std::int32_t) {
    rows.emplace_back();
    for (std::int32_t t = 0; t < common::cache::tokens[b % 2]; ++t)
      if (t != 5) rows.back().push_back(t);
  });
  cuda::device ctx(default_stream());
  kvevict::host host;
  auto const says = [&] {
    auto const keep = keep_of(c.view(), rows);
    cuda::keep_set there;
    there.assign(ctx, keep);
    on_device<std::int32_t> slots(std::vector<std::int32_t>(rows.size(), -7));
    std::string const text = refusal([&] {
      replace(ctx, view, there, slots.data());
      ctx.wait();
    });
    CHECK(text == refusal([&] { replace(host, c.view(), keep); }));
    if (text.empty()) CHECK((slots.read() == std::vector<std::int32_t>(rows.size(), 5)));
    return text;
  };
  CHECK(says() == "");
  rows[11][5] = 5;  // 6 is given up in its place
  CHECK(contains(says(), "sequence 5, head 1 is of layer 2 and evicts other tokens than layer 0"));
}

}  // namespace common_positions_test
