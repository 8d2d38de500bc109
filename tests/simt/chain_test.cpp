// SPDX-License-Identifier: Apache-2.0
// A chain of plan and compact on a device that nobody waits for in between: what goes wrong in it, and that it is
// always the same.
#include <limits>

#include <kvevict/cuda.cuh>

#include "simt/device_cache.hpp"
#include "support/batch_cache.hpp"
#include "support/catch.hpp"
#include "support/keep_sets.hpp"

namespace chain_test {

using namespace simt_test;
using namespace support;
namespace cuda = kvevict::cuda;

namespace {

auto const policy = kvevict::presets::ada_snapkv({.window = 8, .pool = 5});

struct outcome {
  std::string refusal;
  std::vector<std::int32_t> tokens;
  std::vector<std::vector<std::byte>> pool;
};

/// plan → compact → wait, on a copy of the cache.
template <class Cache> outcome chain(Cache& cache, kvevict::query_rows const& rows, kvevict::budget const& ask) {
  using entry = typename std::decay_t<decltype(cache.view)>::table_entry;
  device_cache<entry> there(cache);
  device_memory memory;
  cuda::device ctx(default_stream());
  cuda::keep_set keep;
  cuda::compacted<entry> done;
  outcome out;
  out.refusal = refusal([&] {
    kvevict::plan(ctx, policy, kvevict::prompt(there.view, on_device_rows(memory, rows, there.view.sequences())), ask,
                  keep);
    compact(ctx, there.view, keep, kvevict::compaction::stable, done);
    done.wait(ctx);
  });
  CHECK(done.ok() == out.refusal.empty());
  if (out.refusal.empty()) out.tokens = keep.read(ctx).tokens;
  out.pool = there.snapshot();
  return out;
}

}  // namespace

TEST_CASE("a chain that meets a wrong score, page or budget moves nothing and says why once") {
  batch const in = random_batch(31, {.Hq = 4, .H = 2, .D = 16, .N = {60, 41}, .future = 0});
  with_cache(in, [&](auto& cache) {
    attention const rows = all_rows(in);
    kvevict::budget const ask{.tokens_per_head = 24};
    auto const says = [&](kvevict::query_rows const& q, kvevict::budget const& b, char const* part) {
      outcome const got = chain(cache, q, b);
      INFO(got.refusal);
      CHECK(got.refusal.find(part) != std::string::npos);
      CHECK(got.pool == cache.snapshot());
    };
    CHECK(chain(cache, rows.queries(), ask).refusal.empty());
    auto const k = *cache.view.find(kvevict::role::k);
    float const key = cache.get(k, 1, 0, 7, 3);
    cache.set(k, 1, 0, 7, 3, std::numeric_limits<float>::quiet_NaN());
    says(rows.queries(), ask, "of sequence 1, head 0 in layer 0 is NaN");
    cache.set(k, 1, 0, 7, 3, key);
    std::int32_t const budgets[] = {24, 5};
    device_memory memory;
    kvevict::budget small = ask;
    small.per_sequence = memory.put(budgets, 2);
    says(rows.queries(), small, "a budget of 5 tokens is below the 8 protected tokens of sequence 1");
    auto short_rows = rows.queries();
    std::int32_t const begin[] = {0, 60, 63};
    short_rows.row_begin = begin;
    says(short_rows, ask, "sequence 1 provides 3 query rows and the window needs 8");
    if constexpr (!std::decay_t<decltype(cache)>::of_pointers) {
      auto& entry = cache.entries()[0];
      auto const id = entry;
      entry = 1 << 20;
      says(rows.queries(), ask, "page 0 of sequence 0, head 0 has id 1048576, but component k has");
      entry = id;
    }
    CHECK(chain(cache, rows.queries(), ask).refusal.empty());
  });
}

TEST_CASE("a hundred schedules give the same keep set and the same bytes") {
  batch const in = random_batch(32, {.Hq = 4, .H = 2, .D = 16, .N = {60, 41}, .future = 0});
  layouts::cache_shape shape = cache_shape_of(in);
  shape.type = kvevict::dtype::bf16;
  with_cache(layouts::layout::head_pages, shape, in, [&](auto& cache) {
    attention const rows = all_rows(in);
    outcome const first = chain(cache, rows.queries(), {.tokens_per_head = 24});
    REQUIRE(first.refusal.empty());
    std::size_t different = 0;
    for (std::uint64_t seed = 1; seed <= 100; ++seed) {
      scheduled const schedule(seed);
      outcome const again = chain(cache, rows.queries(), {.tokens_per_head = 24});
      different += again.tokens != first.tokens || again.pool != first.pool;
    }
    CHECK(different == 0);
  });
}

}  // namespace chain_test
