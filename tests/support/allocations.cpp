// SPDX-License-Identifier: Apache-2.0
#include "allocations.hpp"

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <limits>
#include <new>

namespace {
constexpr std::int64_t never = std::numeric_limits<std::int64_t>::max();
std::atomic<std::int64_t> count{0}, live{0}, succeeding{never};  // succeeding: before the one that fails; < 0: it has

/// Null when it fails.
void* try_allocate(std::size_t bytes, std::size_t alignment) {
  count.fetch_add(1, std::memory_order_relaxed);
  if (succeeding.load(std::memory_order_relaxed) != never && succeeding.fetch_sub(1, std::memory_order_relaxed) == 0)
    return nullptr;
  void* const p = alignment <= alignof(std::max_align_t)
                      ? std::malloc(bytes == 0 ? 1 : bytes)
                      : std::aligned_alloc(alignment, (bytes / alignment + 1) * alignment);
  if (p != nullptr) live.fetch_add(1, std::memory_order_relaxed);
  return p;
}
void* allocate(std::size_t bytes, std::size_t alignment) {
  void* const p = try_allocate(bytes, alignment);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}
void release(void* p) noexcept {
  if (p != nullptr) live.fetch_sub(1, std::memory_order_relaxed);
  std::free(p);
}
}  // namespace

std::int64_t allocations() { return count.load(); }
std::int64_t live_allocations() { return live.load(); }

failing_allocation::failing_allocation(std::int64_t n) { succeeding.store(n); }
failing_allocation::~failing_allocation() { succeeding.store(never); }
bool failing_allocation::happened() const { return succeeding.load() < 0; }

void* operator new(std::size_t bytes) { return allocate(bytes, 1); }
void* operator new[](std::size_t bytes) { return allocate(bytes, 1); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return allocate(bytes, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t bytes, std::align_val_t alignment) {
  return allocate(bytes, static_cast<std::size_t>(alignment));
}
void* operator new(std::size_t bytes, std::nothrow_t const&) noexcept {  // std::stable_sort's buffer
  return try_allocate(bytes, 1);
}
void operator delete(void* p, std::nothrow_t const&) noexcept { release(p); }
void operator delete(void* p) noexcept { release(p); }
void operator delete[](void* p) noexcept { release(p); }
void operator delete(void* p, std::size_t) noexcept { release(p); }
void operator delete[](void* p, std::size_t) noexcept { release(p); }
void operator delete(void* p, std::align_val_t) noexcept { release(p); }
void operator delete[](void* p, std::align_val_t) noexcept { release(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { release(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { release(p); }
