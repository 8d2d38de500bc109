// SPDX-License-Identifier: Apache-2.0
// A ring of the last W queries on a device holds what the host's holds; a sequence at fault keeps its own.
#include <kvevict/cuda.cuh>

#include "simt/device_cache.hpp"
#include "support/keep_sets.hpp"
#include "support/query_rings.hpp"

using namespace simt_test;
using namespace support;
namespace cuda = kvevict::cuda;

TEST_CASE("query ring on a device: it holds the last rows of each sequence, whatever steps bring") {
  for (std::uint64_t seed = 1; seed < 4; ++seed) {
    scheduled const order(seed);
    ring_case c(seed);
    cuda::device ctx(default_stream());
    for (int step = 0; step < 40; ++step) {
      c.advance();
      kvevict::push(ctx, c.ring(), c.step(), 3);  // the emulation's device reads the host's memory
      ctx.wait();
      c.check();
    }
  }
}

TEST_CASE("query ring on a device: a sequence's fault is told in the host's words") {
  ring_case c(5);
  kvevict::host host;
  cuda::device ctx(default_stream());
  c.advance(), kvevict::push(host, c.ring(), c.step(), 3);
  while (c.row_begin[2] - c.row_begin[1] < 2) c.advance();
  c.at[static_cast<std::size_t>(c.row_begin[1]) + 1] = -3;
  auto const before = std::pair(c.begin[1], c.count[1]);
  std::string const said = refusal([&] { kvevict::push(host, c.ring(), c.step(), 3); });
  CHECK(refusal([&] { kvevict::push(ctx, c.ring(), c.step(), 3), ctx.wait(); }) == said);
  CHECK(said.find("positions of the rows of sequence 1") != std::string::npos);
  CHECK(std::pair(c.begin[1], c.count[1]) == before);
}
