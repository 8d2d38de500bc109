// SPDX-License-Identifier: Apache-2.0
// Device memory of one owner.
#pragma once

#include <cstddef>
#include <optional>
#include <utility>

#include <kvevict/cuda/shim/shim.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

/// Device memory that only grows, and goes on the stream it was last taken from.
class buffer {
 public:
  buffer() = default;
  buffer(buffer const&) = delete;
  buffer& operator=(buffer const&) = delete;
  buffer(buffer&& other) noexcept { swap(other); }
  buffer& operator=(buffer&& other) noexcept { return swap(other), *this; }
  ~buffer() {
    if (memory_ != nullptr) release(*from_, memory_);
  }

  std::byte* data() const { return static_cast<std::byte*>(memory_); }
  std::size_t size() const { return size_; }
  bool holds(void const* p) const { return data() <= p && p < data() + size_; }

  /// At least `bytes`; what was there is lost when it has to grow.   Errors  cuda_error, and the buffer is as before.
  void grow(stream s, std::size_t bytes) {
    if (bytes <= size_) return;
    void* const larger = allocate(s, bytes);
    if (memory_ != nullptr) release(*from_, memory_);
    memory_ = larger, size_ = bytes;
    from_.emplace(s);
  }

 private:
  void swap(buffer& other) noexcept {
    std::swap(memory_, other.memory_), std::swap(size_, other.size_), std::swap(from_, other.from_);
  }

  void* memory_ = nullptr;
  std::size_t size_ = 0;
  std::optional<stream> from_;
};

}  // namespace kvevict::inline KVEVICT_ABI::cuda
