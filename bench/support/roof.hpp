// SPDX-License-Identifier: Apache-2.0
// What this machine can do, measured in the same run as what is compared with it.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <ctime>
#include <vector>

#include <benchmark/benchmark.h>

#include <kvevict/core/host.hpp>
#include <kvevict/kernels/shuffle.hpp>

#include "support/lines.hpp"

namespace bench {

namespace kernels = kvevict::kernels;

/// Seconds so far: of this process's CPU for one thread, so that neighbours on a shared machine count less; of the wall
/// for several.
inline double seconds(std::int32_t threads) {
  if (threads == 1) return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// What bounds a kernel: multiplying, reading, copying (bytes read and written), or nothing that is measured here, of
/// what stays in the caches.
enum class bound { arithmetic, memory, copying, cache };

inline constexpr int rounds = 1 << 20;
inline constexpr double round_flop = 2.0 * 12 * kernels::lanes;

/// `rounds` multiply-adds on each of 12 independent registers.
[[gnu::noinline]] inline void multiply_add(float* sink) {  // inlined, it is sometimes slower
  kernels::vec x[12];
  kernels::vec const f = kernels::splat(0.999f), g = kernels::splat(0.001f);
  for (int i = 0; i < 12; ++i) x[i] = kernels::load(sink) + static_cast<float>(i);  // no two that are one
  for (int i = 0; i < rounds; ++i) kernels::unroll<12>([&](auto j) { x[j] = x[j] * f + g; });
  for (int i = 1; i < 12; ++i) x[0] += x[i];
  kernels::store(sink, x[0]);
}

inline float sum_of(float const* p, std::int64_t count) {
  kernels::vec x[8] = {};
  for (std::int64_t i = 0; i < count; i += 8 * kernels::lanes)
    kernels::unroll<8>([&](auto j) { x[j] += kernels::load(p + i + j * kernels::lanes); });
  for (int i = 1; i < 8; ++i) x[0] += x[i];
  return kernels::sum_of(x[0]);
}

/// Multiplying, reading and copying on every thread of a context at once, each with 128 MiB of its own.
class roof {
 public:
  explicit roof(std::int32_t threads)
      : memory_(static_cast<std::size_t>(threads), lines_of<float>(static_cast<std::size_t>(floats), 1.0f)) {}

  /// Flops or bytes per second, the best of several tries.
  double measure(kvevict::host& ctx, bound by) {
    auto const threads = static_cast<double>(memory_.size());
    if (by == bound::arithmetic) return threads * round_flop * rounds / time(ctx, [](float* p) { multiply_add(p); });
    if (by == bound::memory)
      return threads * bytes / time(ctx, [](float* p) { benchmark::DoNotOptimize(sum_of(p, floats)); });
    return threads * bytes / time(ctx, [](float* p) {
             std::memcpy(p, p + floats / 2, static_cast<std::size_t>(floats) * 2);
             benchmark::ClobberMemory();
           });
  }

 private:
  static constexpr std::int64_t floats = std::int64_t{32} << 20;
  static constexpr double bytes = static_cast<double>(floats) * 4;

  template <class F> double time(kvevict::host& ctx, F f) {
    auto const n = static_cast<std::int32_t>(memory_.size());
    double best = 1e30;
    for (int i = 0; i < 5; ++i) {
      double const start = seconds(n);
      ctx.for_each(n, [&](std::int64_t t, std::int32_t) { f(memory_[static_cast<std::size_t>(t)].data()); });
      best = std::min(best, seconds(n) - start);
    }
    return best;
  }

  std::vector<lines_of<float>> memory_;
};

}  // namespace bench
