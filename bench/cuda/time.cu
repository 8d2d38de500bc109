// SPDX-License-Identifier: Apache-2.0
// Times every verb of shapes.hpp on a GPU beside the two ceilings, measured in the same run: copying, and bf16 matrix
// products. Each verb's result is checked first. bench/run.sh --cuda builds and runs it. It has not run on a GPU yet.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "cuda/baselines.hpp"
#include "cuda/shapes.hpp"

namespace bench {
namespace {

using kvevict::bf16;

void expect(bool yes, char const* what) {
  if (yes) return;
  std::fprintf(stderr, "bench/cuda: %s\n", what);
  std::exit(1);
}

/// Independent matrix products from registers: the rate that mma.sync reaches here.
struct product_kernel {
  static constexpr int max_threads = 256;
  float* out;
  int rounds = 4096;
  KVEVICT_DEVICE void operator()(cuda::thread& t) const {
    cuda::accumulator sums[8] = {};
    cuda::fragment_a<bf16> const a{{t.linear_index(), t.linear_index() + 1, 0, 0}};
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

/// Median of the times of `call(i)` in microseconds, after a warm-up. The device is kept busy for some milliseconds
/// first, while the host puts the call's launches into the stream: their own time is the host's, not the kernels'.
template <class Call> double median_us(cuda::stream s, Call call, int repetitions = 21) {
  cudaEvent_t start, stop;
  cudaEventCreate(&start), cudaEventCreate(&stop);
  std::vector<float> times;
  for (int i = -3; i < repetitions; ++i) {
    cuda::launch(s, {1}, {256}, 0, product_kernel{nullptr, 1 << 17});
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
    std::int64_t const i = std::int64_t{t.block().x} * 256 + t.linear_index();
    if (i >= count) return;
    std::uint32_t h = static_cast<std::uint32_t>(i) * 2654435761u + seed;
    h ^= h >> 15, h *= 2246822519u, h ^= h >> 13, h *= 3266489917u, h ^= h >> 16;
    x[i] = kvevict::from_float<bf16>((static_cast<float>(h >> 8) * 0x1p-24f - 0.5f) * 2.0f);
  }
};

struct memory {
  std::vector<void*> held;
  cuda::stream s;
  template <class T> T* allocate(std::int64_t count) {
    held.push_back(cuda::allocate(s, static_cast<std::size_t>(count) * sizeof(T)));
    return static_cast<T*>(held.back());
  }
  template <class T> T* put(std::vector<T> const& from) {
    T* const p = allocate<T>(static_cast<std::int64_t>(from.size()));
    cuda::copy_to_device(s, p, from.data(), from.size() * sizeof(T));
    cuda::synchronize(s);
    return p;
  }
  bf16* random(std::int64_t count, std::uint32_t seed) {
    bf16* const p = allocate<bf16>(count);
    cuda::launch(s, {static_cast<std::uint32_t>((count + 255) / 256)}, {256}, 0, fill_kernel{p, count, seed});
    return p;
  }
};

/// One input set: more than one of them, so that the second-level cache does not flatter.
layer make_layer(memory& m, shape const& z, std::uint32_t seed) {
  std::int64_t const rows = std::int64_t{z.heads} * z.tokens, pages = z.tokens / z.page_size;
  std::vector<std::int32_t> table(static_cast<std::size_t>(pages * z.heads)),
      lengths(static_cast<std::size_t>(z.heads), z.tokens);
  // 7919 is prime
  for (std::size_t i = 0; i < table.size(); ++i) table[i] = static_cast<std::int32_t>(i * 7919 % table.size());
  auto* const k = reinterpret_cast<std::byte*>(m.random(rows * z.head_dim, seed));
  auto* const v = reinterpret_cast<std::byte*>(m.random(rows * z.head_dim, seed + 1));
  auto* const q = reinterpret_cast<std::byte*>(m.random(std::int64_t{z.tokens} * z.q_heads * z.head_dim, seed + 2));
  // above every sum: no weight passes 1
  std::vector<float> lse(static_cast<std::size_t>(z.tokens) * static_cast<std::size_t>(z.q_heads), 30.0f);
  return layer(z, k, v, m.put(table), m.put(lengths), q, m.put(std::vector<std::int32_t>{0, z.window}),
               m.put(std::vector<std::int32_t>{0, z.tokens}), m.put(lse));
}

/// What the verbs give is what they should: window weights sum to 1 a head, norms are those of the values, budgets are
/// kept.
void check(cuda::device& ctx, layer const& l, shape const& z) {
  std::vector<float> scores;
  kvevict::scores(ctx, kvevict::presets::snapkv({.window = z.window, .pool = 1}),
                  kvevict::prompt(l.view, l.window_queries), {.tokens_per_head = z.budget}, scores);
  for (std::int32_t h = 0; h < z.heads; ++h) {
    double sum = 0;
    for (std::int32_t j = 0; j < z.tokens; ++j)
      sum += static_cast<double>(
          scores[static_cast<std::size_t>(h) * static_cast<std::size_t>(z.tokens) + static_cast<std::size_t>(j)]);
    expect(std::abs(sum - 1) < 1e-4, "window weights of a head do not sum to 1");
  }
  cuda::keep_set keep;
  kvevict::plan(ctx, kvevict::presets::ada_snapkv({.window = z.window}), kvevict::prompt(l.view, l.window_queries),
                {.tokens_per_head = z.budget}, keep);
  expect(keep.read(ctx).kept() == std::int64_t{z.heads} * z.budget, "the budget is not kept exactly");
}

/// Selection beside CUB's sort of the same scores; the same tokens, as no two of these scores are equal.
void time_selection(cuda::stream s, cuda::device& ctx, memory& m, layer const& l, shape const& z) {
  auto const n = static_cast<std::size_t>(z.heads) * static_cast<std::size_t>(z.tokens);
  std::vector<float> values(n);
  std::vector<std::int32_t> index(n), begin;
  for (std::size_t i = 0; i < n; ++i)
    index[i] = static_cast<std::int32_t>(i % static_cast<std::size_t>(z.tokens)),
    values[i] = static_cast<float>(i * 7919 % n) + 1;
  for (std::int32_t h = 0; h <= z.heads; ++h) begin.push_back(h * z.tokens);
  auto *scores = m.put(values), *sorted = m.allocate<float>(static_cast<std::int64_t>(n));
  auto *in = m.put(index), *order = m.allocate<std::int32_t>(static_cast<std::int64_t>(n)), *offsets = m.put(begin);
  std::size_t const bytes = cub_sort(s, nullptr, 0, scores, sorted, in, order, z.tokens, z.heads, offsets);
  auto* const scratch = m.allocate<std::byte>(static_cast<std::int64_t>(bytes));
  double const sort =
      median_us(s, [&](int) { cub_sort(s, scratch, bytes, scores, sorted, in, order, z.tokens, z.heads, offsets); });
  cuda::keep_set keep;
  kvevict::frame frame(ctx.scratch());
  kvevict::score_rows rows = kernels::plan_rows(ctx, frame, l.view, kvevict::protect{}, kvevict::layers::uniform{},
                                                kvevict::budget{.tokens_per_head = z.budget}, kvevict::sharing::none);
  cuda::copy_on_device(s, rows.values, scores, n * sizeof(float));  // rows are as wide as the table, a multiple of four
  double const ours = median_us(s, [&](int) { kernels::select_best(ctx, rows, keep); });
  auto const got = keep.read(ctx);
  std::vector<std::int32_t> best(n);
  cuda::copy_to_host(s, best.data(), order, n * sizeof(std::int32_t));
  cuda::synchronize(s);
  for (std::int32_t h = 0; h < z.heads; ++h) {
    auto const first = best.begin() + h * z.tokens;
    std::sort(first, first + z.budget);
    expect(got(0, h).size == z.budget && std::equal(first, first + z.budget, got(0, h).begin()),
           "CUB's best are not those selected");
  }
  std::printf("| select_best/cub | %d | %.1f | | | %.1f x select_best |\n", z.tokens, sort, sort / ours);
}

/// A whole model's compaction to 20 %, all layers in one call, beside gathering every head into new tensors.
void time_stack(cuda::stream s, cuda::device& ctx, memory& m, shape const& z, double copy) {
  constexpr std::int32_t layers = 32;
  std::int64_t const tensor = std::int64_t{z.heads} * z.tokens * z.head_dim;  // of one layer
  std::int32_t const row_bytes = z.head_dim * 2, pages = z.tokens / z.page_size * z.heads;
  std::vector<std::int32_t> table(static_cast<std::size_t>(pages)),
      lengths(layers * static_cast<std::size_t>(z.heads), z.tokens);
  // pages in order: also the flat copy's (H,N,D)
  for (std::size_t i = 0; i < table.size(); ++i) table[i] = static_cast<std::int32_t>(i);
  auto* const k = reinterpret_cast<std::byte*>(m.random(tensor * layers, 1));
  auto* const v = reinterpret_cast<std::byte*>(m.random(tensor * layers, 2));
  layer const l(z, k, v, m.put(table), m.put(lengths), nullptr, nullptr, nullptr, nullptr);
  auto const view = stack_of(l, layers, l.view.lengths.data);
  cuda::keep_set keep;
  cuda::compacted<std::int32_t> done;
  kvevict::plan(ctx, kvevict::presets::random(), kvevict::contents(view),
                {.tokens_per_head = z.budget, .layer_count = layers}, keep);
  std::int64_t const flat_bytes = std::int64_t{z.heads} * z.budget * row_bytes;
  auto *gathered = m.allocate<std::byte>(flat_bytes), *flat = m.allocate<std::byte>(flat_bytes * 2 * layers);
  double const flatten = median_us(s, [&](int) {
    for (std::int64_t i = 0; i < layers; ++i)
      for (int of : {0, 1})
        flatten_copy(s, (of == 0 ? k : v) + i * tensor * 2, gathered, flat + (i * 2 + of) * flat_bytes, keep,
                     i * z.heads, z.heads, z.tokens, z.budget, row_bytes);
  });
  // all repetitions move the same slots
  double const us = median_us(s, [&](int) { compact(ctx, view, keep, kvevict::compaction::stable, done); });
  done.wait(ctx);
  double const by_bytes = 2.0 * static_cast<double>(done.bytes_moved()) / copy;
  std::printf("| compact/stable/layers:32/cuda | %d | %.1f | %.1f | 0 | %.2f |\n", z.tokens, us, by_bytes,
              by_bytes / us);
  std::printf("| flatten_copy/layers:32 | %d | %.1f | | | %.1f x compact |\n", z.tokens, flatten, flatten / us);
}

void run() {
  cuda::owned_stream own;
  cuda::stream const s = own;
  cudaDeviceProp device{};
  cudaGetDeviceProperties(&device, 0);
  memory m{{}, s};
  std::int64_t const gib = std::int64_t{1} << 30;
  auto *from = m.allocate<std::byte>(gib), *to = m.allocate<std::byte>(gib);
  // bytes a µs
  double const copy = 2.0 * static_cast<double>(gib) /
                      median_us(s, [&](int) { cuda::copy_on_device(s, to, from, static_cast<std::size_t>(gib)); });
  auto const blocks = static_cast<std::uint32_t>(device.multiProcessorCount * 4);
  auto* const sink = m.allocate<float>(1);
  double const flops = 8.0 * 4096 * product_kernel{}.rounds * blocks * 8 /
                       median_us(s, [&](int) { cuda::launch(s, {blocks}, {256}, 0, product_kernel{sink}); });
  std::printf(
      "# %s: copy %.0f GB/s, bf16 mma.sync %.0f Tflop/s\n\n| verb | N | µs | least bytes / copy | flops / products | "
      "share of the higher |\n|---|---|---|---|---|---|\n",
      device.name, copy / 1e3, flops / 1e6);
  for (std::int32_t const tokens : {8192, 32768}) {
    shape z;
    z.tokens = tokens, z.budget = tokens / 5;
    // their keys together are twice the second-level cache at least; scores are scratch, which stays in it
    std::vector<layer> sets;
    for (std::uint32_t i = 0; i < (tokens < 32768 ? 6 : 3); ++i) sets.push_back(make_layer(m, z, 1 + 100 * i));
    auto const count = static_cast<int>(sets.size());
    cuda::device ctx(s);
    outputs out;
    check(ctx, sets[0], z);
    for (verb const& v : verbs(z)) {
      if (std::string(v.name).rfind("compact", 0) == 0) continue;  // moves in place: its own loop below
      double const us = median_us(s, [&](int i) { v.call(ctx, sets[static_cast<std::size_t>(i % count)], z, out); });
      ctx.wait();
      double const by_bytes = v.bytes / copy, by_flops = v.flops / flops;
      std::printf("| %s/cuda | %d | %.1f | %.1f | %.1f | %.2f |\n", v.name, tokens, us, by_bytes, by_flops,
                  std::max(by_bytes, by_flops) / us);
    }
    time_selection(s, ctx, m, sets[0], z);
    if (tokens == 32768) time_stack(s, ctx, m, z, copy);
    for (auto const mode : {kvevict::compaction::stable, kvevict::compaction::fill_holes}) {
      cuda::keep_set keep;
      cuda::compacted<std::int32_t> done;
      kvevict::plan(ctx, kvevict::presets::random(), kvevict::contents(sets[0].view), {.tokens_per_head = z.budget},
                    keep);
      double const us =
          median_us(s, [&](int i) { compact(ctx, sets[static_cast<std::size_t>(i % count)].view, keep, mode, done); });
      done.wait(ctx);
      double const by_bytes = 2.0 * static_cast<double>(done.bytes_moved()) / copy;
      std::printf("| compact/%s/cuda | %d | %.1f | %.1f | 0 | %.2f |\n",
                  mode == kvevict::compaction::stable ? "stable" : "fill_holes", tokens, us, by_bytes, by_bytes / us);
    }
  }
  for (void* p : m.held) cuda::release(s, p);
}

}  // namespace
}  // namespace bench

int main() {
  try {
    bench::run();
  } catch (std::exception const& e) {
    std::fprintf(stderr, "bench/cuda: %s\n", e.what());
    return 1;
  }
}
