// SPDX-License-Identifier: Apache-2.0
// A scheduler that is a step ahead of the device: it appends tokens, and plans and compacts them, by counts that it
// knows itself, and reads what the step before has done while the next one runs.
#include <array>

#include <kvevict/cuda.cuh>
#include <kvevict/kvevict.hpp>

#include "simt/device_cache.hpp"
#include "support/catch.hpp"
#include "support/keep_sets.hpp"

namespace ahead_test {

using namespace simt_test;
using support::contains;
using support::refusal;
namespace cuda = kvevict::cuda;

namespace {

constexpr std::int32_t S = 3, H = 2, P = 4, columns = 8, D = 4;
constexpr std::size_t rows = std::size_t{S} * H;

std::size_t index_of(std::int32_t b, std::int32_t h) { return static_cast<std::size_t>(b * H + h); }

/// An engine's paged keys, [page][slot][D], every head with pages of its own; and the keys that it will append.
struct engine {
  std::vector<float> pool = std::vector<float>(static_cast<std::size_t>(S * H * columns * P * D));
  std::vector<std::int32_t> table;
  reference::generator random{7};

  engine() {
    for (std::int32_t i = 0; i < S * H * columns; ++i) table.push_back(i * 7 % (S * H * columns));
  }
  std::vector<float> new_keys(std::int32_t tokens) {
    std::vector<float> out(rows * static_cast<std::size_t>(tokens * D));
    for (float& x : out) x = static_cast<float>(random.normal());
    return out;
  }
  kvevict::layer_view<> view(float* keys, std::int32_t const* pages, std::int32_t const* lengths) const {
    kvevict::layer_view<> v;
    v.pages.sequences = S, v.pages.heads = H, v.pages.page_size = P, v.pages.columns = columns;
    v.pages.entries = pages, v.pages.seq_stride = H * columns, v.pages.head_stride = columns;
    v.lengths = {lengths, H, 1};
    kvevict::component k;
    k.rows.base = reinterpret_cast<std::byte*>(keys), k.rows.page_count = S * H * columns, k.rows.run_bytes = D * 4;
    k.rows.slot_stride = D * 4, k.rows.page_stride = P * D * 4;
    return v.with(k);
  }
  /// f(token of the step, row, where its key lies) for the tokens that follow `lengths`.
  template <class F> void each_new(std::vector<std::int32_t> const& lengths, std::int32_t tokens, F f) {
    auto const v = view(pool.data(), table.data(), lengths.data());
    for (std::int32_t b = 0; b < S; ++b)
      for (std::int32_t h = 0; h < H; ++h)
        for (std::int32_t i = 0; i < tokens; ++i)
          f(i, index_of(b, h), v.row(v.components[0], b, h, v.length(b, h) + i) - v.components[0].rows.base);
  }
};

/// Tokens that each step brings.
constexpr std::array<std::int32_t, 6> steps{13, 1, 4, 1, 2, 7};
constexpr kvevict::budget ask{.tokens_per_head = 10};

std::vector<std::int32_t> grown(std::vector<std::int32_t> lengths, std::int32_t by) {
  for (std::int32_t& n : lengths) n += by;
  return lengths;
}

}  // namespace

TEST_CASE("an engine that plans a step ahead of the device has the cache of one that waits for it") {
  for (std::uint64_t const schedule : {0U, 1U, 2U}) {
    scheduled const order(schedule);
    auto const policy = kvevict::presets::keydiff({.recent = 2});
    engine waiting, ahead;

    // on the host, step by step
    kvevict::host host;
    std::vector<std::int32_t> lengths(rows);
    for (std::int32_t const tokens : steps) {
      auto const keys = waiting.new_keys(tokens);
      waiting.each_new(lengths, tokens, [&](std::int32_t i, std::size_t r, std::int64_t at) {
        std::memcpy(reinterpret_cast<std::byte*>(waiting.pool.data()) + at,
                    &keys[(r * static_cast<std::size_t>(tokens) + static_cast<std::size_t>(i)) * D], D * 4);
      });
      lengths = grown(lengths, tokens);
      auto const view = waiting.view(waiting.pool.data(), waiting.table.data(), lengths.data());
      auto const done = compact(host, view, plan(host, policy, kvevict::contents(view), ask));
      lengths.assign(done.lengths().begin(), done.lengths().end());
    }

    // on a device, of which nothing is read before the next step has been given to it
    cuda::device ctx(default_stream());
    on_device<float> const pool(ahead.pool);
    on_device<std::int32_t> const table(ahead.table);
    std::deque<on_device<std::int32_t>> of_steps;
    std::array<cuda::keep_set, 2> keep;
    std::array<cuda::compacted<std::int32_t>, 2> done;
    std::vector<std::int32_t> known(rows), before;
    auto const read = [&](std::size_t step) {
      done[step % 2].wait(ctx);
      auto const now = done[step % 2].lengths();
      CHECK(std::vector<std::int32_t>(now.begin(), now.end()) == before);
    };
    for (std::size_t step = 0; step < steps.size(); ++step) {
      std::int32_t const tokens = steps[step];
      auto const keys = ahead.new_keys(tokens);
      ahead.each_new(known, tokens, [&](std::int32_t i, std::size_t r, std::int64_t at) {
        cuda::copy_to_device(ctx.queue(), reinterpret_cast<std::byte*>(pool.data()) + at,
                             &keys[(r * static_cast<std::size_t>(tokens) + static_cast<std::size_t>(i)) * D], D * 4);
      });
      known = grown(known, tokens);
      auto const view = ahead.view(pool.data(), table.data(), of_steps.emplace_back(known).data());
      plan(ctx, policy, kvevict::contents(view), ask, keep[step % 2]);
      compact(ctx, view, keep[step % 2], kvevict::compaction::stable, done[step % 2]);
      auto const counts = plan_counts(host, policy, ahead.view(pool.data(), table.data(), known.data()), ask);
      if (step > 0) read(step - 1);
      before = known = counts.rows;
    }
    read(steps.size() - 1);
    CHECK(known == lengths);
    auto const there = pool.read();
    auto const view = waiting.view(waiting.pool.data(), waiting.table.data(), lengths.data());
    for (std::int32_t b = 0; b < S; ++b)
      for (std::int32_t h = 0; h < H; ++h)
        for (std::int32_t t = 0; t < view.length(b, h); ++t) {
          std::byte const* const mine = view.row(view.components[0], b, h, t);
          CHECK(std::memcmp(mine,
                            reinterpret_cast<std::byte const*>(there.data()) + (mine - view.components[0].rows.base),
                            D * 4) == 0);
        }
  }
}

TEST_CASE("a plan that a rejected draft or a retried step has made stale is refused, and the next one is not") {
  engine e;
  for (float& x : e.pool) x = static_cast<float>(e.random.normal());
  on_device<float> const pool(e.pool);
  on_device<std::int32_t> const table(e.table), lengths(std::vector<std::int32_t>(rows, 20)),
      shorter(std::vector<std::int32_t>{20, 20, 18, 18, 20, 20});
  auto const policy = kvevict::presets::keydiff();
  auto const view = e.view(pool.data(), table.data(), lengths.data()),
             rejected = e.view(pool.data(), table.data(), shorter.data());
  cuda::device ctx(default_stream());
  cuda::keep_set keep;
  cuda::compacted<std::int32_t> done, next;
  plan(ctx, policy, kvevict::contents(view.with_epoch(3)), ask, keep);
  CHECK(contains(refusal([&] { compact(ctx, view.with_epoch(4), keep, kvevict::compaction::stable, done); }), "epoch"));
  // lengths are seen on the device, behind which the engine is a step ahead already
  compact(ctx, rejected.with_epoch(3), keep, kvevict::compaction::stable, done);
  cuda::keep_set again;
  plan(ctx, policy, kvevict::contents(rejected.with_epoch(4)), ask, again);
  CHECK(contains(refusal([&] { done.wait(ctx); }), "sequence 1, head 0"));
  CHECK((pool.read() == e.pool));
  compact(ctx, rejected.with_epoch(4), again, kvevict::compaction::stable, next);
  next.wait(ctx);
  CHECK(next.lengths()[2] == 10);
  CHECK((pool.read() != e.pool));
}

}  // namespace ahead_test
