// SPDX-License-Identifier: Apache-2.0
// The scratch memory of a context.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>
#include <vector>

#include <kvevict/core/abi.hpp>
#include <kvevict/core/contract.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// Where an arena's blocks come from, aligned to 64 bytes at least. Default: the heap.
struct memory_source {
  void* (*allocate)(void* self, std::size_t bytes) = [](void*, std::size_t bytes) {
    return ::operator new (bytes, std::align_val_t{64});
  };
  void (*release)(void* self, void* block) = [](void*, void* block) {
    ::operator delete (block, std::align_val_t{64});
  };
  void* self = nullptr;
};

/// Grow-only bump memory, of the host or of a device. The first call of a size may allocate; after it, none does.
class arena {
 public:
  static constexpr std::size_t alignment = 64;

  arena() = default;
  explicit arena(memory_source from) : from_(from) {}

  void* allocate(std::size_t bytes) {
    bytes = (bytes + alignment - 1) / alignment * alignment;
    while (block_ < blocks_.size() && blocks_[block_].size - used_ < bytes) ++block_, used_ = 0;
    if (block_ == blocks_.size()) add_block(bytes);
    std::byte* p = blocks_[block_].memory + used_;
    used_ += bytes;
    in_use_ += bytes;
    high_water_ = std::max(high_water_, in_use_);
    return p;
  }

  /// Makes one block of at least `bytes`, so that calls whose `workspace_bytes` is not larger never allocate.
  void reserve(std::size_t bytes) {
    KVEVICT_EXPECTS(in_use_ == 0, "reserve: scratch is in use; call it between verbs, not inside one");
    if (blocks_.size() == 1 && blocks_[0].size >= bytes) return;
    blocks_.clear();
    if (bytes != 0) add_block(bytes);
    block_ = used_ = 0;
  }

  std::size_t in_use() const { return in_use_; }
  /// Bytes that were in use at once, at most; and bytes held.
  std::size_t high_water() const { return high_water_; }
  std::size_t capacity() const {
    std::size_t sum = 0;
    for (block const& b : blocks_) sum += b.size;
    return sum;
  }

 private:
  friend class frame;
  struct block {  // no unique_ptr: <memory> is a fifth of all that the library would include
    block(memory_source source, std::size_t bytes)
        : from(source), size(bytes), memory(static_cast<std::byte*>(source.allocate(source.self, bytes))) {}
    block(block&& other) noexcept : from(other.from), size(other.size), memory(other.memory) { other.memory = nullptr; }
    ~block() {
      if (memory != nullptr) from.release(from.self, memory);
    }

    memory_source from;
    std::size_t size;
    std::byte* memory;
  };

  void add_block(std::size_t bytes) {
    blocks_.emplace_back(from_, bytes);
    used_ = 0;
  }
  void merge_blocks() noexcept {  // several blocks were needed: next time one is enough
    if (blocks_.size() <= 1) return;
#if KVEVICT_EXCEPTIONS
    try {
      reserve(high_water_);
    } catch (...) {  // a frame's end is no place to fail: the next call takes what it needs
      block_ = used_ = 0;
    }
#else
    reserve(high_water_);
#endif
  }

  memory_source from_;
  std::vector<block> blocks_;
  std::size_t block_ = 0, used_ = 0, in_use_ = 0, high_water_ = 0;
};

/// A stretch of scratch use: what it took is given back, without freeing, when it goes out of scope.
class frame {
 public:
  explicit frame(arena& a) : arena_(a), block_(a.block_), used_(a.used_), in_use_(a.in_use_) {}
  frame(frame const&) = delete;
  frame& operator=(frame const&) = delete;
  ~frame() {
    arena_.block_ = block_, arena_.used_ = used_, arena_.in_use_ = in_use_;
    if (in_use_ == 0) arena_.merge_blocks();
  }

  /// `count` elements, aligned to 64 bytes, not initialised.
  template <class T> T* allocate(std::int64_t count) {
    static_assert(std::is_trivially_destructible_v<T>, "scratch is given back without destructors");
    return static_cast<T*>(arena_.allocate(static_cast<std::size_t>(count) * sizeof(T)));
  }

 private:
  arena& arena_;
  std::size_t block_, used_, in_use_;
};

}  // namespace KVEVICT_ABI
}  // namespace kvevict
