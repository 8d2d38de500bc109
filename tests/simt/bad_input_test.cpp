// SPDX-License-Identifier: Apache-2.0
// What plan, observe and replace refuse on a device: the host's reasons, and not a byte of the cache is another.
#include <functional>
#include <limits>
#include <memory>

#include <kvevict/cuda.cuh>
#include <kvevict/kvevict.hpp>

#include "simt/device_cache.hpp"
#include "support/batch_cache.hpp"
#include "support/catch.hpp"
#include "support/keep_sets.hpp"

using namespace simt_test;
using namespace support;
using Catch::Contains;
using kvevict::role;
namespace cuda = kvevict::cuda;
namespace presets = kvevict::presets;

namespace {

constexpr kvevict::budget twenty{.tokens_per_head = 20};
constexpr auto snapkv = presets::snapkv({.window = 8, .pool = 3});
constexpr auto ahakv = presets::ahakv({.recent = 8});
constexpr auto h2o = presets::h2o();

/// Two sequences in a cache with state and all their rows, on both sides.
struct room {
  batch in = random_batch(81, {.Hq = 4, .H = 2, .D = 8, .N = {40, 30}});
  layouts::cache<std::int32_t> cache;
  device_memory memory;
  std::unique_ptr<device_cache<std::int32_t>> copy;
  cuda::device ctx{default_stream()};

  explicit room(std::int32_t state_floats = 1, std::function<void(layouts::cache<std::int32_t>&)> const& change = [](auto&) {})
      : cache(layouts::layout::head_pages, shape(state_floats)) {
    fill(cache, in);
    cache.fill(role::state, [](int b, int h, int t, int c) { return b + h + t + c; });
    change(cache);
    copy = std::make_unique<device_cache<std::int32_t>>(cache);
  }
  layouts::cache_shape shape(std::int32_t state_floats) const {
    auto out = cache_shape_of(in);
    out.state_floats = state_floats;
    return out;
  }
  kvevict::layer_view<std::int32_t>& view() { return copy->view; }
  template <class Rows> Rows there(Rows const& rows) { return on_device_rows(memory, rows, 2); }

  /// call(ctx) is refused, at once or by wait(), with both parts in the message; the cache is as it was and the context goes on.
  template <class Call> void refuses(Call const& call, std::string const& what, std::string const& remedy) {
    auto const bytes = copy->snapshot();
    CHECK_THAT(refusal([&] { call(ctx), ctx.wait(); }), Contains(what) && Contains(remedy) && Contains("; "));
    CHECK((copy->snapshot() == bytes));
    CHECK(refusal([&] { ctx.wait(); }) == "");
  }
  template <class Policy, class Evidence>
  void plan_refuses(Policy const& p, Evidence const& e, std::string const& what, std::string const& remedy, kvevict::budget const& b = twenty) {
    cuda::keep_set keep;
    refuses([&](cuda::device& on) { kvevict::plan(on, p, e, b, keep); }, what, remedy);
  }
  template <class Policy, class Evidence>
  void ignores(Policy const& p, Evidence const& e, std::string const& what, std::string const& remedy, kvevict::budget const& b = twenty) {
    refuses([&](cuda::device& on) { kvevict::observe(on, p, e, b); }, what, remedy);
  }
};

}  // namespace

TEST_CASE("bad input on a device: observing at a position below 0, which has no column in the ring") {
  for (std::size_t const rows : {1, 3})
    for (std::int32_t const position : {-1, -9, std::numeric_limits<std::int32_t>::min()}) {
      room r(8);
      attention some = last_rows(r.in, rows);
      some.positions[rows] = position;  // the oldest of sequence 1
      std::string const what = "a position of sequence 1 is " + std::to_string(position);
      r.ignores(ahakv, kvevict::step(r.view(), r.there(some.queries())), what, "logical position");
      r.ignores(ahakv, kvevict::step(r.view(), r.there(some.rows())), what, "logical position");
    }
}
