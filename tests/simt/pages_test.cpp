// SPDX-License-Identifier: Apache-2.0
// Whole pages on a device: the bodies of unit/policy/pages_test.cpp and laws/pages_test.cpp; refusals in the host's
// words.
#include <kvevict/cuda.cuh>

#include "simt/device_cache.hpp"
#include "support/whole_pages.hpp"

namespace pages_test {

using namespace simt_test;
using namespace support;
namespace cuda = kvevict::cuda;
namespace turns = support::turns;

namespace {

/// Plans on a device what lies there.
struct device_plan {
  cuda::device& ctx;

  template <class Policy, class View>
  whole_pages::answer operator()(Policy const& p, View const& view, kvevict::budget const& b) {
    whole_pages::answer out;
    out.refused = refusal([&] {
      cuda::keep_set keep;
      plan(ctx, p, kvevict::contents(view), b, keep);
      out.keep = keep.read(ctx);
    });
    return out;
  }
};

}  // namespace

TEST_CASE("a device keeps the best of all sets of pages, by row, by shared budgets and in one set for all") {
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    device_memory memory;
    cuda::device ctx(default_stream());
    device_plan plan{ctx};
    whole_pages::check_all_sets(
        seed, [&](auto const& x) { return memory.put(x); }, plan);
  }
}

TEST_CASE("on a device every preset keeps whole pages, and as many as its budget holds") {
  turns::for_each_policy([&](char const* name, auto const& policy) {
    std::int64_t planned = 0;
    for (std::uint64_t seed = 1; seed <= 5; ++seed) {
      CAPTURE(name);
      device_memory memory;
      cuda::device ctx(default_stream());
      device_plan plan{ctx};
      whole_pages::check(
          policy, seed, [&](auto const& x) { return memory.put(x); }, plan, planned);
    }
  });
}

TEST_CASE("a device refuses what select::pages cannot keep in the host's words") {
  whole_pages::refusals([&](auto const& policy, auto view, kvevict::budget const& b, std::string const& what) {
    kvevict::host host;
    std::string const said = refusal([&] { plan(host, policy, kvevict::contents(view), b); });
    CHECK((what.empty() ? said.empty() : contains(said, what)));
    device_memory memory;
    view.lengths.data = memory.put(view.lengths.data, static_cast<std::size_t>(view.rows()));
    if (view.pages.entries != nullptr)
      view.pages.entries = memory.put(view.pages.entries, static_cast<std::size_t>(view.components[0].rows.page_count));
    for (std::int32_t i = 0; i < view.component_count; ++i) {
      auto& at = view.components[static_cast<std::size_t>(i)].rows.base;
      at = memory.put(at, 1024);
    }
    cuda::device ctx(default_stream());
    device_plan plan{ctx};
    auto const got = plan(policy, view, b);
    CAPTURE(what);
    CHECK(got.refused == said);
  });
}

}  // namespace pages_test
