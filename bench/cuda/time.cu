// SPDX-License-Identifier: Apache-2.0
// Times every verb of shapes.hpp on a GPU beside the two ceilings, measured in the same run: copying, and bf16 matrix products. Each verb's result is
// checked first. bench/run.sh --cuda builds and runs it. It has not run on a GPU yet.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "cuda/shapes.hpp"

namespace {

using namespace bench;
using kvevict::bf16;

void expect(bool yes, char const* what) {
  if (yes) return;
  std::fprintf(stderr, "bench/cuda: %s\n", what);
  std::exit(1);
}

/// Median of the times of `call(i)` in microseconds, after a warm-up.
template <class Call> double median_us(cuda::stream s, Call call, int repetitions = 21) {
  cudaEvent_t start, stop;
  cudaEventCreate(&start), cudaEventCreate(&stop);
  std::vector<float> times;
  for (int i = -3; i < repetitions; ++i) {
    cudaEventRecord(start, s.handle());
    call(i + 3);
    cudaEventRecord(stop, s.handle());
    cudaEventSynchronize(stop);
    float ms = 0;
    cudaEventElapsedTime(&ms, start, stop);
    if (i >= 0) times.push_back(ms * 1000);
  }
  cudaEventDestroy(start), cudaEventDestroy(stop);
  std::nth_element(times.begin(), times.begin() + repetitions / 2, times.end());
  return times[static_cast<std::size_t>(repetitions / 2)];
}

/// Small numbers that differ by place; the same on every machine.
struct fill_kernel {
  static constexpr int max_threads = 256;
  bf16* x;
  std::int64_t count;
  std::uint32_t seed;
  KVEVICT_DEVICE void operator()(cuda::thread& t) const {
    std::int64_t const i = std::int64_t{t.block().x} * 256 + t.rank();
    if (i >= count) return;
    std::uint32_t h = static_cast<std::uint32_t>(i) * 2654435761u + seed;
    h ^= h >> 15, h *= 2246822519u, h ^= h >> 13, h *= 3266489917u, h ^= h >> 16;
    x[i] = cuda::narrow<bf16>((static_cast<float>(h >> 8) * 0x1p-24f - 0.5f) * 2.0f);
  }
};

/// Independent matrix products from registers: the rate that mma.sync reaches here.
struct product_kernel {
  static constexpr int max_threads = 256;
  static constexpr int rounds = 4096;
  float* out;
  KVEVICT_DEVICE void operator()(cuda::thread& t) const {
    cuda::accumulator sums[8] = {};
    cuda::fragment_a<bf16> const a{{t.rank(), t.rank() + 1, 0, 0}};
    cuda::fragment_b<bf16> const b{{t.lane(), 0}};
    for (int i = 0; i < rounds; ++i) {
      KVEVICT_UNROLL
      for (auto& sum : sums) cuda::multiply_add(t, sum, a, b);
    }
    float all = 0;
    for (auto const& sum : sums) all += sum.values[0] + sum.values[3];
    if (all == 1e30f) out[0] = all;
  }
};

struct memory {
  std::vector<void*> held;
  cuda::stream s;
  template <class T> T* take(std::int64_t count) {
    held.push_back(cuda::allocate(s, static_cast<std::size_t>(count) * sizeof(T)));
    return static_cast<T*>(held.back());
  }
  template <class T> T* put(std::vector<T> const& from) {
    T* const p = take<T>(static_cast<std::int64_t>(from.size()));
    cuda::copy_to_device(s, p, from.data(), from.size() * sizeof(T));
    cuda::synchronize(s);
    return p;
  }
  bf16* random(std::int64_t count, std::uint32_t seed) {
    bf16* const p = take<bf16>(count);
    cuda::launch(s, {static_cast<std::uint32_t>((count + 255) / 256)}, {256}, 0, fill_kernel{p, count, seed});
    return p;
  }
};

/// One input set: more than one of them, so that the second-level cache does not flatter.
layer make_layer(memory& m, shape const& z, std::uint32_t seed) {
  std::int64_t const rows = std::int64_t{z.heads} * z.tokens, pages = z.tokens / z.page_size;
  std::vector<std::int32_t> table(static_cast<std::size_t>(pages * z.heads)), lengths(static_cast<std::size_t>(z.heads), z.tokens);
  for (std::size_t i = 0; i < table.size(); ++i) table[i] = static_cast<std::int32_t>(i * 7919 % table.size());  // 7919 is prime
  auto* const k = reinterpret_cast<std::byte*>(m.random(rows * z.head_dim, seed));
  auto* const v = reinterpret_cast<std::byte*>(m.random(rows * z.head_dim, seed + 1));
  auto* const q = reinterpret_cast<std::byte*>(m.random(std::int64_t{z.tokens} * z.q_heads * z.head_dim, seed + 2));
  std::vector<float> lse(static_cast<std::size_t>(z.tokens) * static_cast<std::size_t>(z.q_heads), 30.0f);  // above every sum: no weight passes 1
  return layer(z, k, v, m.put(table), m.put(lengths), q, m.put(std::vector<std::int32_t>{0, z.window}), m.put(std::vector<std::int32_t>{0, z.tokens}), m.put(lse));
}

/// What the verbs give is what they should: window weights sum to 1 a head, norms are those of the values, budgets are kept.
void check(cuda::device& ctx, layer const& l, shape const& z) {
  std::vector<float> scores;
  kvevict::scores(ctx, kvevict::presets::snapkv({.window = z.window, .pool = 1}), kvevict::prompt(l.view, l.window_queries), {.tokens_per_head = z.budget}, scores);
  for (std::int32_t h = 0; h < z.heads; ++h) {
    double sum = 0;
    for (std::int32_t j = 0; j < z.tokens; ++j) sum += static_cast<double>(scores[static_cast<std::size_t>(h) * static_cast<std::size_t>(z.tokens) + static_cast<std::size_t>(j)]);
    expect(std::abs(sum - 1) < 1e-4, "window weights of a head do not sum to 1");
  }
  cuda::keep_set keep;
  kvevict::plan(ctx, kvevict::presets::ada_snapkv({.window = z.window}), kvevict::prompt(l.view, l.window_queries), {.tokens_per_head = z.budget}, keep);
  expect(keep.read(ctx).kept() == std::int64_t{z.heads} * z.budget, "the budget is not kept exactly");
}

void run() {
  cuda::owned_stream own;
  cuda::stream const s = own;
  cudaDeviceProp device{};
  cudaGetDeviceProperties(&device, 0);
  memory m{{}, s};
  std::int64_t const gib = std::int64_t{1} << 30;
  auto *from = m.take<std::byte>(gib), *to = m.take<std::byte>(gib);
  double const copy = 2.0 * static_cast<double>(gib) / median_us(s, [&](int) { cuda::copy_on_device(s, to, from, static_cast<std::size_t>(gib)); });  // bytes a µs
  auto const blocks = static_cast<std::uint32_t>(device.multiProcessorCount * 4);
  auto* const sink = m.take<float>(1);
  double const flops = 8.0 * 4096 * product_kernel::rounds * blocks * 8 / median_us(s, [&](int) { cuda::launch(s, {blocks}, {256}, 0, product_kernel{sink}); });
  std::printf("# %s: copy %.0f GB/s, bf16 mma.sync %.0f Tflop/s\n\n| verb | N | µs | least bytes / copy | flops / products | share of the higher |\n|---|---|---|---|---|---|\n",
              device.name, copy / 1e3, flops / 1e6);
  for (std::int32_t const tokens : {8192, 32768}) {
    shape z;
    z.tokens = tokens, z.budget = tokens / 5;
    layer const sets[] = {make_layer(m, z, 1), make_layer(m, z, 100), make_layer(m, z, 200)};
    cuda::device ctx(s);
    check(ctx, sets[0], z);
    for (verb const& v : verbs(z)) {
      if (std::string(v.name).rfind("compact", 0) == 0) continue;  // moves in place: its own loop below
      double const us = median_us(s, [&](int i) { v.call(ctx, sets[i % 3], z); });
      ctx.wait();
      double const by_bytes = v.bytes / copy, by_flops = v.flops / flops;
      std::printf("| %s/cuda | %d | %.1f | %.1f | %.1f | %.2f |\n", v.name, tokens, us, by_bytes, by_flops, std::max(by_bytes, by_flops) / us);
    }
    for (auto const mode : {kvevict::compaction::stable, kvevict::compaction::fill_holes}) {
      cuda::keep_set keep;
      cuda::compacted<std::int32_t> done;
      kvevict::plan(ctx, kvevict::presets::random(), kvevict::contents(sets[0].view), {.tokens_per_head = z.budget}, keep);
      double const us = median_us(s, [&](int i) { compact(ctx, sets[i % 3].view, keep, mode, done); });
      done.wait(ctx);
      double const by_bytes = 2.0 * static_cast<double>(done.bytes_moved()) / copy;
      std::printf("| compact/%s/cuda | %d | %.1f | %.1f | 0 | %.2f |\n", mode == kvevict::compaction::stable ? "stable" : "fill_holes", tokens, us, by_bytes, by_bytes / us);
    }
  }
  for (void* p : m.held) cuda::release(s, p);
}

}  // namespace

int main() {
  try {
    run();
  } catch (std::exception const& e) {
    std::fprintf(stderr, "bench/cuda: %s\n", e.what());
    return 1;
  }
}
