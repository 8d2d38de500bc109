// SPDX-License-Identifier: Apache-2.0
// One set of tokens for all heads and layers on a device: the bodies of unit/policy/together_test.cpp; refusals in the
// host's words.
#include <kvevict/cuda.cuh>

#include "simt/device_cache.hpp"
#include "support/together.hpp"

namespace together_test {

using namespace simt_test;
using namespace support;
namespace cuda = kvevict::cuda;

TEST_CASE("a device keeps the best of scores that heads and layers have together") {
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    cuda::device ctx(default_stream());
    device_memory memory;
    together::check(
        seed, [&](auto const& x) { return memory.put(x); },
        [&](auto const& policy, auto const& view, kvevict::budget const& b) {
          cuda::keep_set keep;
          plan(ctx, policy, kvevict::contents(view), b, keep);
          return keep.read(ctx);
        });
  }
}

TEST_CASE("a device refuses rows that cannot keep one set, and policies that a cache cannot follow, as the host does") {
  device_memory memory;
  auto const put = [&](auto const* p, std::int64_t count) { return memory.put(p, static_cast<std::size_t>(count)); };
  together::refusals([&](auto policy, auto view, kvevict::budget b, std::string const& what) {
    kvevict::host host;
    std::string const said = refusal([&] { plan(host, policy, kvevict::contents(view), b); });
    std::int64_t const rows = view.rows(), room = view.pages.page_size;
    view.lengths.data = put(view.lengths.data, view.lengths.head_stride == 0 ? view.sequences() : rows);
    for (std::int32_t i = 0; i < view.component_count; ++i) {
      auto& at = view.components[static_cast<std::size_t>(i)].rows.base;
      at = put(at, rows * room * 4);
    }
    if (b.per_sequence != nullptr) b.per_sequence = put(b.per_sequence, view.sequences());
    if constexpr (requires { policy.score.scores; }) policy.score.scores = put(policy.score.scores, rows * room);
    cuda::device ctx(default_stream());
    std::string const on_device = refusal([&] {
      cuda::keep_set keep;
      plan(ctx, policy, kvevict::contents(view), b, keep);
      ctx.wait();
    });
    CAPTURE(what);
    CHECK(on_device == said);
    CHECK((what.empty() ? said.empty() : said.find(what) != std::string::npos));
  });
}

}  // namespace together_test
