// SPDX-License-Identifier: Apache-2.0
// The same work, compiled by generic.cpp and by native.cpp: 256 floats through halves in the context's scratch.
#include <cstdint>
#include <kvevict/core/dtype.hpp>
#include <kvevict/core/host.hpp>
#include <kvevict/kvevict.hpp>

static float work() {
  kvevict::host ctx;
  kvevict::frame scratch(ctx.scratch());
  auto* halves = scratch.allocate<kvevict::f16>(256);
  float sum = 0;
  ctx.for_each(256, [&](std::int64_t i, std::int32_t) {
    halves[i] = kvevict::from_float<kvevict::f16>(static_cast<float>(i) / 3);
    sum += kvevict::to_float(halves[i]);
  });
  return sum;
}
