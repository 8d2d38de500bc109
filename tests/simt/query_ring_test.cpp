// SPDX-License-Identifier: Apache-2.0
// A ring of the last W queries on a device holds what the host's holds; a sequence at fault keeps its own.
#include <kvevict/cuda.cuh>

#include "simt/device_cache.hpp"
#include "support/keep_sets.hpp"
#include "support/query_rings.hpp"

namespace query_ring_test {

using namespace simt_test;
using namespace support;
namespace cuda = kvevict::cuda;

namespace {

/// The case's ring in device memory.
struct device_ring {
  ring_case& of;
  on_device<float> data;
  on_device<std::int32_t> positions, begin, count;

  explicit device_ring(ring_case& c) : of(c), data(c.data), positions(c.positions), begin(c.begin), count(c.count) {}
  void push(cuda::device& ctx) const {
    kvevict::query_ring ring = of.ring();
    ring.data = data.data(), ring.positions = positions.data(), ring.begin = begin.data(), ring.count = count.data();
    device_memory memory;
    kvevict::push(ctx, ring, on_device_rows(memory, of.step(), int32(ring_case::B)), 3);
    ctx.wait();
  }
  void read() const {
    of.data = data.read(), of.positions = positions.read(), of.begin = begin.read(), of.count = count.read();
  }
};

}  // namespace

TEST_CASE("query ring on a device: it holds the last rows of each sequence, whatever steps bring") {
  for (std::uint64_t seed = 1; seed < 4; ++seed) {
    scheduled const order(seed);
    ring_case c(seed);
    device_ring const there(c);
    cuda::device ctx(default_stream());
    for (int step = 0; step < 40; ++step) {
      c.advance();
      there.push(ctx), there.read();
      c.check();
    }
  }
}

TEST_CASE("query ring on a device: a sequence's fault is told in the host's words") {
  ring_case c(5);
  kvevict::host host;
  cuda::device ctx(default_stream());
  c.advance(), kvevict::push(host, c.ring(), c.step(), 3);
  device_ring const there(c);
  while (c.row_begin[2] - c.row_begin[1] < 2) c.advance();
  c.at[static_cast<std::size_t>(c.row_begin[1]) + 1] = -3;
  auto const before = std::pair(c.begin[1], c.count[1]);
  std::string const said = refusal([&] { kvevict::push(host, c.ring(), c.step(), 3); });
  CHECK(refusal([&] { there.push(ctx); }) == said);
  CHECK(said.find("positions of the rows of sequence 1") != std::string::npos);
  there.read();
  CHECK(std::pair(c.begin[1], c.count[1]) == before);
}

}  // namespace query_ring_test
