// SPDX-License-Identifier: Apache-2.0
// Kernels that use each feature of the device shim once; compiled by g++ under the emulation and by nvcc (shim.cu).
#pragma once

#include <cstdint>

#include <kvevict/core/dtype.hpp>
#include <kvevict/cuda/shim/shim.hpp>

namespace simt_test {
namespace cuda = kvevict::cuda;

/// The sum of each block's stretch: shared memory, barriers.
struct block_sum {
  static constexpr int max_threads = 256;
  std::uint32_t const* in;
  std::uint32_t* out;
  std::int64_t count;

  KVEVICT_DEVICE void operator()(cuda::thread& t) const {
    std::uint32_t* const sums = t.shared<std::uint32_t>(t.block_size().x);
    std::uint32_t const i = t.index().x;
    std::int64_t const at = std::int64_t{t.block().x} * t.block_size().x + i;
    sums[i] = at < count ? in[at] : 0;
    for (std::uint32_t half = t.block_size().x / 2; half != 0; half /= 2) {
      t.sync_block();
      if (i < half) sums[i] += sums[i + half];
    }
    if (i == 0) out[t.block().x] = sums[0];
  }
  template <class Check> void pointers(Check check) const { check(in, count); }
};

/// Inclusive sums within each warp, and the sum of each aligned pair of lanes by xor; 64-bit values come back from the
/// lane below.
struct warp_scan {
  std::uint32_t const* in;
  std::uint32_t *sums, *pairs;
  double* below;

  KVEVICT_DEVICE void operator()(cuda::thread& t) const {
    std::uint32_t const i = t.block().x * static_cast<std::uint32_t>(cuda::volume(t.block_size())) + t.linear_index();
    std::uint32_t x = in[i];
    pairs[i] = x + cuda::shuffle_xor(t, x, 1);
    below[i] = cuda::shuffle(t, 0.5 * x, (t.lane() + 31) % 32);
    for (std::uint32_t d = 1; d < 32; d *= 2) {
      std::uint32_t const lower = cuda::shuffle_up(t, x, d);
      if (t.lane() >= d) x += lower;
    }
    sums[i] = x;
  }
};

/// Votes of half warps; an exchange through shared memory with a warp barrier.
struct half_warps {
  std::uint32_t* out;  // (32, 3)

  KVEVICT_DEVICE void operator()(cuda::thread& t) const {
    KVEVICT_SHARED(t, std::uint32_t, seen, 32);
    std::uint32_t const l = t.lane(), mask = l < 16 ? 0x0000ffffu : 0xffff0000u;
    std::uint32_t* const row = out + l * 3;
    row[0] = cuda::ballot(t, l % 3 == 0, mask);
    seen[l] = l * l;
    t.sync_warp(mask);
    row[1] = seen[l ^ 15];
    row[2] = static_cast<std::uint32_t>(-cuda::shuffle(t, -static_cast<std::int32_t>(l), l ^ 3, mask));
  }
};

/// Every atomic.
struct counters {
  std::uint32_t* words;  // (4): add, max, or, swapped
  std::int32_t* largest;
  std::uint64_t* wide;

  KVEVICT_DEVICE void operator()(cuda::thread& t) const {
    std::uint32_t const i = t.block().x * t.block_size().x + t.index().x;
    cuda::atomic_add(t, words + 0, i);
    cuda::atomic_max(t, words + 1, i);
    cuda::atomic_or(t, words + 2, 1u << i % 32);
    cuda::atomic_compare_exchange(t, words + 3, 0u, i + 1);
    cuda::atomic_max(t, largest, -static_cast<std::int32_t>(i));
    cuda::atomic_add(t, wide, std::uint64_t{1} << 33);
  }
};

/// Each thread brings 16 bytes, two groups in flight, a cut tail; reversed through shared memory.
struct reverse_async {
  float const* in;
  float* out;
  std::int64_t count;
  std::uint32_t* early;  // (1) how many threads saw their data before they waited

  KVEVICT_DEVICE void operator()(cuda::thread& t) const {
    std::uint32_t const n = t.block_size().x, i = t.index().x;
    float* const tile = t.shared<float>(2 * 4 * n);
    for (std::uint32_t half = 0; half < 2; ++half) {
      std::int64_t const first = std::int64_t{half} * 4 * n + 4 * i, left = (count - first) * 4;
      cuda::copy_async16(t, tile + first, left > 0 ? in + first : in,
                         left >= 16 ? 16
                         : left > 0 ? static_cast<std::uint32_t>(left)
                                    : 0);
      cuda::commit_async(t);
    }
    cuda::wait_async<1>(t);
#if defined(KVEVICT_SIMT_EMULATION)
    if (tile[4 * n + 4 * i] == in[4 * n + 4 * i]) cuda::atomic_add(t, early, 1);
#endif
    cuda::wait_async(t);
    t.sync_block();
    for (std::uint32_t j = i; j < 2 * n; j += n) {
      cuda::vec128 v = cuda::load_vec128(t, tile + 4 * (2 * n - 1 - j));
      cuda::store_vec128(t, out + 4 * j, {{v.words[3], v.words[2], v.words[1], v.words[0]}});
    }
  }
};

/// D (16×8) += A (16×16) · B (16×8), all row-major in memory, one warp.
template <class T> struct matrix_product {
  T const *a, *b;
  float* d;

  KVEVICT_DEVICE void operator()(cuda::thread& t) const {
    cuda::fragment_a<T> fa;
    cuda::fragment_b<T> fb;
    cuda::accumulator sum;
    auto const at = [](cuda::place p, std::uint32_t width) { return p.row * width + p.column; };
    KVEVICT_UNROLL for (std::uint32_t r = 0; r < 4; ++r) fa.registers[r] =
        cuda::pack(a[at(fa.place_of(t.lane(), 2 * r), 16)], a[at(fa.place_of(t.lane(), 2 * r + 1), 16)]);
    KVEVICT_UNROLL for (std::uint32_t r = 0; r < 2; ++r) fb.registers[r] =
        cuda::pack(b[at(fb.place_of(t.lane(), 2 * r), 8)], b[at(fb.place_of(t.lane(), 2 * r + 1), 8)]);
    KVEVICT_UNROLL for (std::uint32_t i = 0; i < 4; ++i) sum.values[i] = d[at(sum.place_of(t.lane(), i), 8)];
    cuda::multiply_add(t, sum, fa, fb);
    KVEVICT_UNROLL for (std::uint32_t i = 0; i < 4; ++i) d[at(sum.place_of(t.lane(), i), 8)] = sum.values[i];
  }
};

/// Conversions and arithmetic: out (i, 6).
struct arithmetic {
  float const* in;
  float* out;

  KVEVICT_DEVICE void operator()(cuda::thread& t) const {
    cuda::vec128 const four = cuda::load_once_vec128(t, in + t.index().x / 4 * 4);
    float const x = in[t.index().x];
    float* const o = out + t.index().x * 6;
    o[0] = cuda::widen(kvevict::from_float<kvevict::bf16>(x));
    o[1] = cuda::widen(kvevict::from_float<kvevict::f16>(x));
    o[2] = cuda::fma(x, x, -1.0f);
    o[3] = cuda::exp2(x);
    o[4] = cuda::log2(cuda::add(x, cuda::multiply(x, 0.0f)));
    o[5] = static_cast<float>(four.words[t.index().x % 4] >> 23);
  }
};

/// The bits of the float of every T, and of the T nearest to 65536 floats.
template <class T> struct conversions {
  static constexpr int max_threads = 256;
  std::uint32_t* wide;
  std::uint16_t* back;

  KVEVICT_DEVICE void operator()(cuda::thread& t) const {
    std::uint32_t const i = t.block().x * t.block_size().x + t.index().x;
    wide[i] = kvevict::bits::as_uint(kvevict::to_float(T{static_cast<std::uint16_t>(i)}));
    back[i] = kvevict::from_float<T>(kvevict::bits::as_float(i << 16 | i)).bits;
  }
};

}  // namespace simt_test
