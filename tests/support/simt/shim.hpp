// SPDX-License-Identifier: Apache-2.0
// The device shim of include/kvevict/cuda for a host compiler: the same names, documented there.
// KVEVICT_SIMT_EMULATION names this file.
#pragma once

#include <cmath>
#include <cstring>
#include <deque>
#include <type_traits>

#include <kvevict/cuda/shim/fragment.hpp>
#include <kvevict/cuda/shim/vec128.hpp>

#include "support/simt/simt.hpp"

#define KVEVICT_SHARED(t, type, name, count) \
  static_cast<void>(t);                      \
  static char name##_site;                   \
  auto& name = *static_cast<type(*)[count]>(::simt::shared(&name##_site, sizeof(type[count])))

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace cuda {

class thread {
 public:
  thread(extent index, extent block, extent block_size, extent grid_size)
      : index_(index), block_(block), block_size_(block_size), grid_size_(grid_size) {}
  thread(thread const&) = delete;
  thread& operator=(thread const&) = delete;

  extent index() const { return index_; }
  extent block() const { return block_; }
  extent block_size() const { return block_size_; }
  extent grid_size() const { return grid_size_; }
  std::uint32_t linear_index() const { return index_.x + block_size_.x * (index_.y + block_size_.y * index_.z); }
  std::uint32_t lane() const { return linear_index() % warp_size; }
  std::uint32_t warp() const { return linear_index() / warp_size; }

  template <class T> T* shared(std::size_t count) { return static_cast<T*>(simt::shared(nullptr, count * sizeof(T))); }
  void sync_block() { simt::meet(simt::meeting::sync_block); }
  void sync_warp(std::uint32_t mask = full_warp) { simt::meet(simt::meeting::sync_warp, mask); }

  struct async_copy {
    void* to;
    void const* from;
    std::uint32_t valid, group;
  };
  std::deque<async_copy> copies;  // under way, the oldest first
  std::uint32_t group = 0;

 private:
  extent index_, block_, block_size_, grid_size_;
};

// Warps.
template <class T> T exchange(simt::meeting kind, T x, std::uint32_t source, std::uint32_t mask) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8),
                "shuffle: give an arithmetic type of 4 or 8 bytes");
  std::uint64_t bits = 0;
  std::memcpy(&bits, &x, sizeof(T));
  bits = simt::meet(kind, mask, bits, source);
  std::memcpy(&x, &bits, sizeof(T));
  return x;
}
template <class T> T shuffle(thread&, T x, std::uint32_t lane, std::uint32_t mask = full_warp) {
  return exchange(simt::meeting::shuffle, x, lane, mask);
}
template <class T> T shuffle_up(thread& t, T x, std::uint32_t delta, std::uint32_t mask = full_warp) {
  return exchange(simt::meeting::shuffle_up, x, t.lane() < delta ? t.lane() : t.lane() - delta, mask);
}
template <class T> T shuffle_xor(thread& t, T x, std::uint32_t bits, std::uint32_t mask = full_warp) {
  return exchange(simt::meeting::shuffle_xor, x, t.lane() ^ bits, mask);
}
inline std::uint32_t ballot(thread&, bool yes, std::uint32_t mask = full_warp) {
  return static_cast<std::uint32_t>(simt::meet(simt::meeting::ballot, mask, yes));
}

// Atomics: the host's own, so that ThreadSanitizer knows them.
template <class T, class F> T atomically(T* p, F next) {
  static_assert(std::is_integral_v<T> && sizeof(T) >= 4, "atomics: integers of 4 or 8 bytes");
  simt::maybe_yield();
  T before = __atomic_load_n(p, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(p, &before, next(before), false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return before;
}
template <class T> T atomic_add(thread&, T* p, std::type_identity_t<T> x) {
  return atomically(p, [x](T before) { return static_cast<T>(before + x); });
}
template <class T> T atomic_or(thread&, T* p, std::type_identity_t<T> x) {
  return atomically(p, [x](T before) { return before | x; });
}
template <class T> T atomic_max(thread&, T* p, std::type_identity_t<T> x) {
  return atomically(p, [x](T before) { return x > before ? x : before; });
}
template <class T>
T atomic_compare_exchange(thread&, T* p, std::type_identity_t<T> expected, std::type_identity_t<T> x) {
  return atomically(p, [=](T before) { return before == expected ? x : before; });
}

template <class T> T atomic_load(thread&, T const* p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
template <class F> void one_by_one(thread&, std::uint32_t* turn, F f) {
  while (__atomic_exchange_n(turn, 1u, __ATOMIC_ACQUIRE) != 0) simt::maybe_yield();
  f();
  __atomic_store_n(turn, 0u, __ATOMIC_RELEASE);
}

// Vectors and copies.
template <class Pointer> Pointer require_aligned(Pointer p, char const* call) {
  if (reinterpret_cast<std::uintptr_t>(p) % 16 != 0)
    simt::fail(std::string(call) + ": the address is not aligned to 16 bytes");
  return p;
}
inline vec128 load_vec128(thread&, void const* p) {
  return *static_cast<vec128 const*>(require_aligned(p, "load_vec128"));
}
inline vec128 load_once_vec128(thread& t, void const* p) { return load_vec128(t, p); }
inline void store_vec128(thread&, void* p, vec128 v) { *static_cast<vec128*>(require_aligned(p, "store_vec128")) = v; }
inline void copy_async16(thread& t, void* shared, void const* global, std::uint32_t valid = 16) {
  if (valid > 16) simt::fail("copy_async16: more than 16 bytes");
  // undefined until it has been waited for
  *static_cast<vec128*>(require_aligned(shared, "copy_async16")) = {{~0u, ~0u, ~0u, ~0u}};
  t.copies.push_back({shared, require_aligned(global, "copy_async16"), valid, t.group});
}
inline void commit_async(thread& t) { ++t.group; }
template <int Pending = 0> void wait_async(thread& t) {
  for (; !t.copies.empty() && t.copies.front().group + Pending < t.group; t.copies.pop_front()) {
    thread::async_copy const c = t.copies.front();
    unsigned char bytes[16] = {};
    for (std::uint32_t i = 0; i < c.valid; ++i) bytes[i] = static_cast<unsigned char const*>(c.from)[i];
    std::memcpy(c.to, bytes, 16);
  }
}

// Arithmetic.
template <class T> float widen(T x) { return to_float(x); }
inline float fma(float a, float b, float c) { return std::fma(a, b, c); }
inline float add(float a, float b) { return a + b; }
inline float multiply(float a, float b) { return a * b; }
inline std::int32_t count_bits(std::uint32_t x) { return __builtin_popcount(x); }
inline float exp2(float x) { return std::exp2(x); }
inline float log2(float x) { return std::log2(x); }
template <class T> void multiply_add(thread&, accumulator& d, fragment_a<T> const& a, fragment_b<T> const& b) {
  simt::matrix_part const part{a.registers, b.registers, d.values,
                               [](std::uint16_t bits) { return to_float(T{bits}); }};
  simt::meet(simt::meeting::multiply_add, full_warp, reinterpret_cast<std::uintptr_t>(&part));
}

// Streams and launches.
class stream {
 public:
  stream(simt::queue* handle) : handle_(handle) {}
  simt::queue* handle() const { return handle_; }

 private:
  simt::queue* handle_;
};
class owned_stream {
 public:
  owned_stream() = default;
  owned_stream(owned_stream const&) = delete;
  owned_stream& operator=(owned_stream const&) = delete;
  ~owned_stream() {
    try {
      simt::synchronize(work_);
    } catch (cuda_error const&) {  // whoever wanted to know has synchronized
    }
  }
  operator stream() { return stream(&work_); }

 private:
  simt::queue work_;
};
inline std::size_t most_shared_bytes() { return simt::shared_bytes; }
inline void synchronize(stream s) { simt::synchronize(*s.handle()); }

/// Checks now, and again when its turn has come, then works.
template <class Check, class Work> void enqueue(stream s, Check check, Work work) {
  check();
  s.handle()->push_back([=] { check(), work(); });
}
inline void* allocate(stream, std::size_t bytes) { return simt::allocate(bytes); }
inline void release(stream s, void* p) {
  if (p != nullptr)
    enqueue(
        s, [p] { simt::require_device(p, 0, "release device memory"); }, [p] { simt::release(p); });
}
template <class Check> void copy(stream s, void* to, void const* from, std::size_t bytes, Check check) {
  enqueue(s, check, [=] {
    if (bytes != 0) std::memmove(to, from, bytes);
  });  // nothing may come from nowhere
}
inline void copy_to_device(stream s, void* device, void const* host, std::size_t n) {
  copy(s, device, host, n,
       [=] { simt::require_device(device, n, "copy to the device"), simt::require_host(host, "copy to the device"); });
}
inline void copy_to_host(stream s, void* host, void const* device, std::size_t n) {
  copy(s, host, device, n,
       [=] { simt::require_device(device, n, "copy to the host"), simt::require_host(host, "copy to the host"); });
}
inline void copy_on_device(stream s, void* to, void const* from, std::size_t n) {
  copy(s, to, from, n, [=] {
    for (void const* p : {static_cast<void const*>(to), from}) simt::require_device(p, n, "copy on the device");
  });
}
inline void fill_bytes(stream s, void* device, unsigned char value, std::size_t n) {
  enqueue(
      s, [=] { simt::require_device(device, n, "fill device memory"); }, [=] { std::memset(device, value, n); });
}

template <class Kernel> void launch(stream s, extent grid, extent block, std::size_t shared, Kernel const& kernel) {
  static_assert(std::is_trivially_copyable_v<Kernel>, "launch: a kernel holds pointers and sizes by value");
  static_assert(sizeof(Kernel) <= limits::parameter_bytes,
                "launch: a kernel's parameters have at most 4096 bytes; put tables into memory");
  require_launchable(grid, block, shared, max_threads_of<Kernel>(), name_of_kernel<Kernel>());
  auto const check = [=] {
    if constexpr (requires { kernel.pointers([](auto*, std::int64_t) {}); })
      kernel.pointers([](auto* p, std::int64_t count) {
        simt::require_device(p, static_cast<std::size_t>(count) * sizeof(*p), name_of_kernel<Kernel>());
      });
  };
  enqueue(s, check, [=] {
    simt::run({grid, block, shared, name_of_kernel<Kernel>(), [&](extent index, extent at) {
                 thread t(index, at, block, grid);
                 kernel(t);
                 if (!t.copies.empty())
                   simt::fail(
                       "an asynchronous copy is never waited for; commit_async and wait_async before the kernel ends");
               }});
  });
}

}  // namespace cuda
}  // namespace KVEVICT_ABI
}  // namespace kvevict
