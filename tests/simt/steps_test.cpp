// SPDX-License-Identifier: Apache-2.0
// How many kernels, copies and fills each verb puts into a stream, as trying it out tells: none comes back unnoticed.
#include <kvevict/cuda.cuh>

#include "simt/device_cache.hpp"
#include "support/batch_cache.hpp"
#include "support/catch.hpp"
#include "support/gate_case.hpp"

namespace steps_test {

using namespace simt_test;
using namespace support;
namespace cuda = kvevict::cuda;
namespace presets = kvevict::presets;

namespace {

constexpr kvevict::budget twenty{.tokens_per_head = 20};

struct steps {
  std::size_t kernels, copies, fills;
  friend bool operator==(steps const&, steps const&) = default;
};
std::ostream& operator<<(std::ostream& to, steps const& s) {
  return to << s.kernels << " kernels, " << s.copies << " copies, " << s.fills << " fills";
}

template <class Call> steps of(Call const& call) {
  auto const run = cuda::device::try_out(default_stream(), call);
  auto const count = [&](cuda::dry_run::kind k) { return run.count(k); };
  for (auto const& s : run.steps) CHECK(std::string(s.name).size() > 0);
  return {count(cuda::dry_run::kind::launch), count(cuda::dry_run::kind::copy), count(cuda::dry_run::kind::fill)};
}

/// Two sequences in a cache with positions and `floats` of state, and rows of all their tokens.
struct room {
  batch in = random_batch(41, {.Hq = 4, .H = 2, .D = 16, .N = {40, 30}});
  layouts::cache<std::int32_t> cache;
  device_memory memory;
  device_cache<std::int32_t> there;
  kvevict::query_rows queries;
  cuda::keep_set keep;
  cuda::compacted<std::int32_t> done;

  explicit room(std::int32_t floats = 1) : cache(layouts::layout::head_pages, shape(floats)), there(cache) {
    queries = on_device_rows(memory, all_rows(in).queries(), 2);
  }
  layouts::cache_shape shape(std::int32_t floats) const {
    auto out = cache_shape_of(in);
    out.state_floats = floats, out.positions = true;
    return out;
  }
  kvevict::query_rows with_lse() const {
    auto q = queries;
    q.lse = reinterpret_cast<float const*>(q.data), q.lse_token_stride = q.heads, q.lse_head_stride = 1;
    return q;
  }
  template <class Policy, class Evidence> steps plan(Policy const& p, Evidence const& e) {
    return of([&](cuda::device& ctx) { kvevict::plan(ctx, p, e, twenty, keep); });
  }
  template <class Policy, class Evidence> steps observe(Policy const& p, Evidence const& e) {
    return of([&](cuda::device& ctx) { kvevict::observe(ctx, p, e, twenty); });
  }
  steps compact(kvevict::layer_view<std::int32_t> const& view) {
    keep.sequences = view.sequences(), keep.heads = view.heads(), keep.stride = 40;
    return of([&](cuda::device& ctx) { kvevict::compact(ctx, view, keep, kvevict::compaction::fill_holes, done); });
  }
};

}  // namespace

TEST_CASE("a decoding step of H2O is 20 kernels in the stream, without a copy or a fill") {
  room r;
  auto const& view = r.there.view;
  constexpr auto h2o = presets::h2o();
  steps const s = of([&](cuda::device& ctx) {
    kvevict::observe(ctx, h2o, kvevict::step(view, r.queries), twenty);
    kvevict::plan(ctx, h2o, kvevict::remembered(view), twenty, r.keep);
    compact(ctx, view, r.keep, kvevict::compaction::stable, r.done);
  });
  CHECK(s == steps{20, 0, 0});
}

TEST_CASE("what verbs put into the stream is counted") {
  room r, ring(8);
  auto const& view = r.there.view;
  auto scattered = view;
  scattered.order = kvevict::row_order::scattered;
  auto const q = kvevict::prompt(view, r.queries), with_lse = kvevict::prompt(view, r.with_lse());
  auto one = r.queries;
  one.most_rows = 1;
  SECTION("planning") {
    CHECK(r.plan(presets::streaming_llm(), kvevict::contents(view)) == steps{6, 0, 0});
    CHECK(r.plan(presets::random(), kvevict::contents(view)) == steps{6, 0, 0});
    CHECK(r.plan(presets::snapkv({.window = 8, .pool = 3}), q) == steps{9, 0, 0});
    CHECK(r.plan(presets::ada_snapkv({.window = 8, .pool = 3}), q) == steps{20, 0, 1});
    CHECK(r.plan(presets::h2o(), q) == steps{9, 0, 0});
    CHECK(r.plan(presets::h2o(), with_lse) == steps{8, 0, 0});
    CHECK(r.plan(presets::h2o(), kvevict::remembered(view)) == steps{6, 0, 0});
    CHECK(r.plan(presets::h2o(), kvevict::remembered(scattered)) == steps{8, 0, 0});
    CHECK(r.plan(presets::ahakv({.recent = 8}), q) == steps{12, 1, 0});
  }
  SECTION("observing") {
    CHECK(r.observe(presets::h2o(), q) == steps{9, 0, 0});
    CHECK(r.observe(presets::h2o(), with_lse) == steps{8, 0, 0});
    CHECK(r.observe(presets::h2o(), kvevict::step(scattered, one)) == steps{11, 0, 0});
    CHECK(ring.observe(presets::ahakv({.recent = 8}), kvevict::step(ring.there.view, one)) == steps{8, 0, 0});
  }
  SECTION("applying") {
    auto prefix = view;
    prefix.read_only = view.lengths.data;
    CHECK(r.compact(view) == steps{5, 0, 0});
    CHECK(r.compact(prefix) == steps{6, 0, 0});
    CHECK(of([&](cuda::device& ctx) {
            kvevict::replace(ctx, view, r.keep, const_cast<std::int32_t*>(view.lengths.data));
          }) == steps{3, 0, 0});
  }
}

}  // namespace steps_test
