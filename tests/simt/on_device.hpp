// SPDX-License-Identifier: Apache-2.0
// A vector's copy in device memory, and a schedule for the length of a scope.
#pragma once

#include <vector>

#include <kvevict/cuda/shim/shim.hpp>

namespace simt_test {

/// Released memory stays the process's: tests take and give back very much of it.
inline void keep_released_memory() {
#if !defined(KVEVICT_SIMT_EMULATION)
  cudaMemPool_t pool;
  std::uint64_t all = ~std::uint64_t{0};
  cudaDeviceGetDefaultMemPool(&pool, 0);
  cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &all);
#endif
}

inline kvevict::cuda::stream default_stream() {
  static kvevict::cuda::owned_stream s = (keep_released_memory(), kvevict::cuda::owned_stream());
  return s;
}

template <class T> class on_device {
 public:
  explicit on_device(std::vector<T> const& from)
      : size_(from.size()), p_(kvevict::cuda::allocate(stream(), size_ * sizeof(T))) {
    kvevict::cuda::copy_to_device(stream(), p_, from.data(), size_ * sizeof(T));
    kvevict::cuda::synchronize(stream());
  }
  on_device(on_device const&) = delete;
  on_device& operator=(on_device const&) = delete;
  ~on_device() { kvevict::cuda::release(stream(), p_); }

  static kvevict::cuda::stream stream() { return default_stream(); }
  T* data() const { return static_cast<T*>(p_); }
  std::vector<T> read() const {
    std::vector<T> out(size_);
    kvevict::cuda::copy_to_host(stream(), out.data(), p_, size_ * sizeof(T));
    kvevict::cuda::synchronize(stream());
    return out;
  }

 private:
  std::size_t size_;
  void* p_;
};

/// A GPU takes its own.
struct scheduled {
#if defined(KVEVICT_SIMT_EMULATION)
  explicit scheduled(std::uint64_t seed) { simt::schedule = seed; }
  ~scheduled() { simt::schedule = 0; }
#else
  explicit scheduled(std::uint64_t) {}
#endif
};

}  // namespace simt_test
