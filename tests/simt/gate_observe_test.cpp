// SPDX-License-Identifier: Apache-2.0
// A gate through observe and plan on a device, with its memory: the host's state and keep sets after every chunk.
#include <cmath>

#include <kvevict/cuda.cuh>
#include <kvevict/kvevict.hpp>

#include "simt/device_cache.hpp"
#include "support/batch_cache.hpp"
#include "support/catch.hpp"
#include "support/gate_case.hpp"
#include "support/keep_sets.hpp"

namespace gate_observe_test {

using namespace simt_test;
using namespace support;
namespace cuda = kvevict::cuda;

namespace {

constexpr kvevict::budget no_cap{.tokens_per_head = kvevict::budget::no_cap};

/// Both sides of one layer: what the host observes and plans, and the device.
template <class Cache> class gated {
 public:
  using entry = typename std::decay_t<decltype(std::declval<Cache>().view)>::table_entry;

  gated(gate_case const& c, Cache& cache, std::int32_t room)
      : c_(c),
        cache_(cache),
        copy_(cache),
        memory_(c.memory(room)),
        rows_(memory_.rows),
        weights_(on_device_gate(there_, c.weights())),
        ctx_(default_stream()) {}

  /// Tokens [from, to) of every sequence; why the device has refused.
  std::string observe(std::vector<std::size_t> const& from, std::vector<std::size_t> const& to,
                      std::int32_t device_capacity) {
    for (std::size_t b = 0; b < c_.B(); ++b)
      for (std::int32_t h = 0; h < cache_.view.heads(); ++h)
        cache_.lengths()[b * static_cast<std::size_t>(cache_.view.heads()) + static_cast<std::size_t>(h)] =
            int32(to[b]);
    hidden const x = c_.states(from, to);
    auto in = on_device_rows(there_, x.rows(), c_.sequences());
    in.memory = {rows_.data(), memory_.stride, device_capacity, there_.put(memory_.tokens)};
    copy_.view.lengths.data = there_.put(cache_.lengths());
    auto const message = refusal([&] {
      kvevict::observe(ctx_, kvevict::presets::attention_gate(weights_), kvevict::prompt(copy_.view, in), no_cap);
      ctx_.wait();
    });
    if (!message.empty()) return message;
    kvevict::observe(host_, kvevict::presets::attention_gate(c_.weights()),
                     kvevict::prompt(cache_.view, x.rows(memory_.view())), no_cap);
    for (std::size_t b = 0; b < c_.B(); ++b) memory_.tokens[b] = int32(to[b]);
    return {};
  }

  void compare() {
    auto const mine = cache_.snapshot();
    std::vector<float> sides[2];
    cache_.restore(copy_.snapshot());
    for (int side = 0; side < 2; ++side, cache_.restore(mine))
      for (int b = 0; b < cache_.view.sequences(); ++b)
        for (int h = 0; h < cache_.view.heads(); ++h) {
          auto const row = cache_.read(kvevict::role::state, b, h);
          sides[side].insert(sides[side].end(), row.begin(), row.end());
        }
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < sides[0].size(); ++i) wrong += !(std::abs(sides[0][i] - sides[1][i]) <= 1e-5f);
    CHECK(wrong == 0);
    kvevict::keep_set want;
    cuda::keep_set keep;
    kvevict::plan(host_, kvevict::presets::attention_gate(c_.weights()), kvevict::remembered(cache_.view), no_cap,
                  want);
    kvevict::plan(ctx_, kvevict::presets::attention_gate(weights_), kvevict::remembered(copy_.view), no_cap, keep);
    auto const got = keep.read(ctx_);
    CHECK(got.tokens == want.tokens);
    CHECK(got.row_begin == want.row_begin);
  }

 private:
  gate_case const& c_;
  Cache& cache_;
  device_cache<entry> copy_;
  device_memory there_;
  gate_rows memory_;
  on_device<float> rows_;
  kvevict::gate_weights weights_;
  kvevict::host host_;
  cuda::device ctx_;
};

}  // namespace

TEST_CASE("a gate observed in chunks on a device has the host's state and plans what it plans") {
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    std::vector<std::size_t> const N{60, 4, 45};
    gate_case const c({.N = N, .H = 2, .group = 2, .heads = 2, .width = 4, .features = 18, .seed = 70 + seed});
    for (std::size_t b = 0; b < N.size(); ++b) REQUIRE(reference::gate_margin(c.flags(b), 0.5) > 1e-5);
    batch const kv = random_batch(seed, {.Hq = 4, .H = 2, .N = N});
    auto shape = cache_shape_of(kv);
    shape.state_floats = 1, shape.page_size = 16;
    scheduled const order(seed);
    CAPTURE(seed);
    with_cache(layouts::layout::head_pages, shape, kv, [&](auto& cache) {
      gated<std::decay_t<decltype(cache)>> both(c, cache, 60);
      reference::generator random(seed);
      std::vector<std::size_t> from(3, 0), to(3, 0);
      for (std::size_t most = 30; from != N; from = to, most = most == 30 ? 1 : 30) {
        for (std::size_t b = 0; b < 3; ++b) to[b] = std::min(N[b], from[b] + 1 + random.below(most));
        if (from[0] != 0 && from != to)
          CHECK(contains(both.observe(from, to, int32(to[0]) - 1), "do not fit the memory"));
        REQUIRE(both.observe(from, to, 60) == "");
        both.compare();
      }
    });
  }
}

TEST_CASE("hidden states of a sequence that is kept whole are not read on a device, and its memory is not written") {
  std::vector<std::size_t> const N{40, 30, 35};
  gate_case c({.N = N, .H = 2, .seed = 84});
  c.X[1][4][2] = static_cast<double>(garbage), c.store();
  batch const kv = random_batch(84, {.Hq = 4, .H = 2, .N = N});
  auto shape = cache_shape_of(kv);
  shape.state_floats = 1;
  with_cache(layouts::layout::head_pages, shape, kv, [&](auto& cache) {
    using entry = typename std::decay_t<decltype(cache.view)>::table_entry;
    cache.fill(kvevict::role::state, [](int, int, int, int) { return 7.0f; });
    device_cache<entry> copy(cache);
    device_memory there;
    gate_rows memory = c.memory(40);
    on_device<float> const rows(memory.rows);
    auto const policy = kvevict::presets::attention_gate(on_device_gate(there, c.weights()));
    auto in = on_device_rows(there, c.states().rows(), c.sequences());
    kvevict::budget b = no_cap;
    b.whole = there.put(std::vector<std::uint8_t>{0, 1, 0});
    cuda::device ctx(default_stream());
    cuda::keep_set keep;
    kvevict::plan(ctx, policy, kvevict::prompt(copy.view, in), b, keep);
    CHECK(keep.read(ctx)(1, 0).size == 30);
    in.memory = {rows.data(), memory.stride, 40, there.put(memory.tokens)};
    kvevict::observe(ctx, policy, kvevict::prompt(copy.view, in), b);
    ctx.wait();
    auto const written = rows.read();
    cache.restore(copy.snapshot());
    for (int i = 0; i < 3; ++i) {
      for (float const p : cache.read(kvevict::role::state, i, 1)) CHECK((p == 7) == (i == 1));
      CHECK(std::isnan(written[static_cast<std::size_t>(i * memory.stride)]) == (i == 1));
    }
  });
}

}  // namespace gate_observe_test
