// SPDX-License-Identifier: Apache-2.0
// What stops a chain of kernels and what is said of it, whatever order threads and blocks run in; and how many steps of
// a stream each verb takes.
#include <limits>

#include <kvevict/cuda.cuh>

#include "simt/device_cache.hpp"
#include "support/batch_cache.hpp"
#include "support/catch.hpp"
#include "support/keep_sets.hpp"

namespace status_test {

using namespace simt_test;
using namespace support;
namespace cuda = kvevict::cuda;
namespace presets = kvevict::presets;

namespace {

/// Every thread counts itself, and finds something wrong if it is told to.
struct finder {
  static constexpr int max_threads = 64;
  cuda::watched watch;
  std::uint32_t* ran;
  bool wrong;

  KVEVICT_DEVICE void operator()(cuda::thread& t) const {
    if (watch.stopped(t)) return;
    cuda::atomic_add(t, ran, 1u);
    std::int32_t const i = static_cast<std::int32_t>(t.block().x * t.block_size().x + t.linear_index());
    if (!wrong) return;
    // sequences 2 … 5, heads 1 and 2, tokens 3 … 10, two kinds
    bool const second = i % 2 != 0;
    watch.refuse(t, second ? kvevict::fault::weighted_score : kvevict::fault::not_finite, 2 + i / 16 % 4, 1 + i / 2 % 2,
                 0x7fc00000, 0, 3 + i / 64);
  }
};

kvevict::fault_record record_of(cuda::device& ctx, std::int32_t sequence) {
  kvevict::fault_record out{};
  cuda::copy_to_host(ctx.queue(), &out, ctx.watch().records + sequence, sizeof out);
  cuda::synchronize(ctx.queue());
  return out;
}

std::string message(cuda::device& ctx) {
  return support::refusal([&] { ctx.wait(); });
}

}  // namespace

TEST_CASE("all that a launch finds wrong is recorded, and its sequences' first is named, in any order") {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    scheduled const schedule(seed);
    cuda::device ctx(default_stream());
    ctx.expect_sequences(6, 2);
    on_device<std::uint32_t> const ran(std::vector<std::uint32_t>{0});
    ctx.launch({8}, {64}, 0, finder{ctx.watch("plan"), ran.data(), true});
    ctx.launch({8}, {64}, 0, finder{ctx.watch("plan"), ran.data(), true});
    ctx.launch({8}, {64}, 0, finder{ctx.watch("plan"), ran.data(), false});
    for (std::int32_t b = 0; b < 6; ++b) {
      CAPTURE(seed, b);
      kvevict::fault_record const r = record_of(ctx, b);
      CHECK((r.place != 0) == (b >= 2));
      if (b < 2) continue;
      CHECK(r.kind() == kvevict::fault::not_finite);
      CHECK(r.layer == b / 3);
      CHECK(r.sequence == b);
      CHECK(r.head() == 1);
      CHECK(r.token() == 3);
      CHECK(r.turn == 0);
    }
    CHECK(ran.read()[0] == 8 * 64);  // all of the first launch's threads, none of the others'
    CHECK(message(ctx).find("plan: the score of token 3 of sequence 2, head 1 in layer 0 is NaN") == 0);
    CHECK(message(ctx).empty());
  }
}

TEST_CASE("a launch that raised a fault is stopped, too, when a graph puts it into the stream again") {
  cuda::device ctx(default_stream());
  on_device<std::uint32_t> const ran(std::vector<std::uint32_t>{0});
  finder first{ctx.watch("plan"), ran.data(), false}, second{ctx.watch("plan"), ran.data(), true};
  first.watch.launch = 7, second.watch.launch = 8;
  for (int again = 0; again < 2; ++again) {
    cuda::launch(ctx.queue(), {1}, {64}, 0, first);
    cuda::launch(ctx.queue(), {1}, {64}, 0, second);
    CHECK(ran.read()[0] == 2 * 64);
  }
  CHECK_FALSE(message(ctx).empty());
  cuda::launch(ctx.queue(), {1}, {64}, 0, first);
  CHECK(ran.read()[0] == 3 * 64);
}

TEST_CASE("a fault outlives a larger batch") {
  cuda::device ctx(default_stream());
  on_device<std::uint32_t> const ran(std::vector<std::uint32_t>{0});
  ctx.launch({1}, {64}, 0, finder{ctx.watch("plan"), ran.data(), true});
  ctx.expect_sequences(1000, 1);
  ctx.launch({1}, {64}, 0, finder{ctx.watch("plan"), ran.data(), false});
  CHECK(message(ctx).find("of sequence 2, head 1 in layer 0 is NaN") != std::string::npos);
  CHECK(ran.read()[0] == 64);
}

TEST_CASE("of several wrong keys the first sequence's first token is named, in any order") {
  batch const in = random_batch(33, {.Hq = 4, .H = 2, .D = 16, .N = {60, 41, 50}, .future = 0});
  with_cache(layouts::layout::head_pages, cache_shape_of(in), in, [&](auto& cache) {
    auto const k = *cache.view.find(kvevict::role::k);
    for (auto [b, h, j] : {std::array<int, 3>{2, 0, 1}, std::array<int, 3>{1, 1, 20}, std::array<int, 3>{1, 1, 9}})
      cache.set(k, b, h, j, 3, std::numeric_limits<float>::quiet_NaN());
    attention const rows = all_rows(in);
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
      scheduled const schedule(seed);
      device_cache there(cache);
      device_memory memory;
      cuda::device ctx(default_stream());
      cuda::keep_set keep;
      kvevict::plan(ctx, presets::snapkv({.window = 8, .pool = 1}),
                    kvevict::prompt(there.view, on_device_rows(memory, rows.queries(), 3)), {.tokens_per_head = 24},
                    keep);
      std::string const text = message(ctx);
      INFO(text);
      // attention of a row with a NaN key is NaN everywhere
      CHECK(text.find("plan: the score of token 0 of sequence 1, head 1 in layer 0 is NaN") == 0);
    }
  });
}

}  // namespace status_test
