// SPDX-License-Identifier: Apache-2.0
// What the host refuses a device refuses, and what it accepts: numbers that are none, windows that are none, state and
// rows that heads share.
#include <limits>

#include <kvevict/cuda.cuh>
#include <kvevict/kvevict.hpp>

#include "simt/device_cache.hpp"
#include "support/batch_cache.hpp"
#include "support/catch.hpp"
#include "support/keep_sets.hpp"

namespace alike_test {

using namespace simt_test;
using namespace support;
namespace cuda = kvevict::cuda;

namespace {

constexpr float no_number = std::numeric_limits<float>::quiet_NaN();
kvevict::budget const ask{.tokens_per_head = 24};

batch const& input() {
  static batch const in = random_batch(7, {.Hq = 4, .H = 2, .D = 16, .N = {60, 33}});
  return in;
}

/// Both contexts plan from the same rows: the same refusal (that of a score also names another token), or the same keep
/// set.
template <class Cache, class Policy, class Rows>
void alike(Cache& cache, Policy const& policy, Rows const& rows, char const* refused) {
  kvevict::host host;
  kvevict::keep_set want;
  std::string const on_host =
      refusal([&] { kvevict::plan(host, policy, kvevict::prompt(cache.view, rows), ask, want); });
  device_cache<typename std::decay_t<decltype(cache.view)>::table_entry> there(cache);
  device_memory memory;
  cuda::device ctx(default_stream());
  cuda::keep_set keep;
  std::string const on_device = refusal([&] {
    kvevict::plan(ctx, policy, kvevict::prompt(there.view, on_device_rows(memory, rows, cache.view.sequences())), ask,
                  keep);
    ctx.wait();
  });
  INFO("host: " << on_host << "\ndevice: " << on_device);
  CHECK(on_host.find(refused) != std::string::npos);
  CHECK(on_device.find(refused) != std::string::npos);
  CHECK(on_host.empty() == on_device.empty());
  if (on_host.empty()) CHECK(keep.read(ctx).tokens == want.tokens);
}

}  // namespace

TEST_CASE("values that are no numbers, or whose norms are none, are never evicted silently") {
  with_cache(input(), [&](auto& cache) {
    auto const rows = all_rows(input());
    auto const all = cache.snapshot();
    for (float const x : {no_number, 3e19f})
      for (int const only : {-1, 0, 50}) {
        CAPTURE(x, only);
        cache.restore(all);
        cache.fill(kvevict::role::v, [&](int, int, int t, int) { return only < 0 || t == only ? x : 0.5f; });
        alike(cache, kvevict::presets::ahakv({.recent = 8, .sinks = 4}), rows.queries(), "NaN");
      }
  });
}

TEST_CASE("a weight that is no number does not hide behind its group's larger one") {
  with_cache(input(), [&](auto& cache) {
    for (std::size_t const head : {std::size_t{0}, std::size_t{1}}) {
      auto rows = all_rows(input());
      rows.weights[(59 * std::size_t{4} + head) * static_cast<std::size_t>(rows.slots) + 10] = no_number;
      auto policy = kvevict::presets::snapkv({.window = 8});
      policy.score.group = kvevict::group_reduce::max;
      alike(cache, policy, rows.rows(), "NaN");
    }
  });
}

TEST_CASE("a window of no rows is refused whatever attention is provided as") {
  with_cache(input(), [&](auto& cache) {
    auto const rows = all_rows(input());
    alike(cache, kvevict::presets::snapkv({.window = 0}), rows.rows(), "at least one row");
    alike(cache, kvevict::presets::snapkv({.window = 0}), rows.queries(), "at least one row");
  });
}

TEST_CASE("a row without tokens needs no page") {
  layouts::cache_shape shape = cache_shape_of(input());
  shape.type = kvevict::dtype::bf16, shape.head_lengths = {60, 0, 33, 0};
  layouts::with_layout(layouts::layout::head_pages, shape, [&](auto& cache) {
    cache.fill([](int, int, int t, int d) { return static_cast<float>((t * 7 + d) % 5) * 0.125f; },
               [](int, int, int, int) { return 1.0f; });
    auto const rows = all_rows(input());
    std::vector<kvevict::bf16> narrow;
    for (float const x : rows.q) narrow.push_back(kvevict::from_float<kvevict::bf16>(x));
    auto q = rows.queries();
    q.data = narrow.data(), q.type = kvevict::dtype::bf16;
    alike(cache, kvevict::presets::ada_snapkv({.window = 8, .pool = 7}), q, "");
    alike(cache, kvevict::presets::ahakv({.recent = 8}).with(kvevict::heads::adaptive{}), q, "");
  });
  batch const in = random_batch(6, {.Hq = 4, .H = 2, .D = 16, .N = {64, 0}});
  layouts::with_layout(layouts::layout::csr, cache_shape_of(in), [&](auto& cache) {
    fill(cache, in);
    alike(cache, kvevict::presets::ahakv({.recent = 8}), all_rows(in).queries(), "");
  });
}

TEST_CASE("heads do not write their state into one place") {
  layouts::cache_shape shape = cache_shape_of(input());
  shape.state_floats = 1;
  layouts::with_layout(layouts::layout::hnd, shape, [&](auto& cache) {
    fill(cache, input());
    for (std::int32_t c = 0; c < cache.view.component_count; ++c)
      if (auto& it = cache.view.components[static_cast<std::size_t>(c)]; it.what == kvevict::role::state)
        it.rows.head_stride = 0;
    auto const rows = all_rows(input());
    device_cache<typename std::decay_t<decltype(cache.view)>::table_entry> there(cache);
    device_memory memory;
    cuda::device ctx(default_stream());
    kvevict::host host;
    auto const policy = kvevict::presets::h2o({.recent = 8});
    CHECK(refusal([&] {
            kvevict::observe(host, policy, kvevict::step(cache.view, rows.queries()), ask);
          }).find("one state component in common") != std::string::npos);
    CHECK(refusal([&] {
            kvevict::observe(ctx, policy, kvevict::step(there.view, on_device_rows(memory, rows.queries(), 2)), ask);
          }).find("one state component in common") != std::string::npos);
  });
}

TEST_CASE("rows that heads share stay where nothing moves, and only there heads may differ") {
  layouts::cache_shape shape;
  shape.lengths = {12}, shape.head_lengths = {12, 9}, shape.heads = 2;
  layouts::with_layout(layouts::layout::bnsh, shape, [&](auto& cache) {
    cache.view.components[2].rows.head_stride = 0;  // positions
    auto const first = [](std::int32_t n) {
      std::vector<std::int32_t> out;
      for (std::int32_t i = 0; i < n; ++i) out.push_back(i);
      return out;
    };
    auto last_moves = first(8);
    last_moves.back() = 8;
    for (auto const& [keep, refused] :
         {std::pair(keep_of(cache.view, {first(12), first(9)}), ""),
          std::pair(keep_of(cache.view, {first(5), first(0)}), ""),
          std::pair(keep_of(cache.view, {first(8), last_moves}), "move different tokens"),
          std::pair(keep_of(cache.view, {last_moves, first(9)}), "move different tokens")}) {
      using entry = typename std::decay_t<decltype(cache.view)>::table_entry;
      device_cache<entry> there(cache);
      cuda::device ctx(default_stream());
      cuda::keep_set planned;
      planned.assign(ctx, keep);
      cuda::compacted<entry> done;
      auto const before = cache.snapshot();
      std::string const on_device =
          refusal([&] { compact(ctx, there.view, planned, kvevict::compaction::stable, done), done.wait(ctx); });
      kvevict::host host;
      std::string const on_host = refusal([&] { compact(host, cache.view, keep); });
      INFO("host: " << on_host << "\ndevice: " << on_device);
      CHECK(on_device.find(refused) != std::string::npos);
      CHECK(on_host.find(refused) != std::string::npos);
      CHECK(on_device.empty() == on_host.empty());
      if (!on_device.empty()) CHECK(there.snapshot() == before);
    }
  });
}

}  // namespace alike_test
