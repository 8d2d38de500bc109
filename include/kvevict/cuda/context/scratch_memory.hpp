// SPDX-License-Identifier: Apache-2.0
// Where a context's scratch comes from: the stream's allocator, a lent buffer, or nowhere.
#pragma once

#include <cstddef>

#include <kvevict/core/host.hpp>
#include <kvevict/cuda/shim/shim.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

/// It stays where it is while its source is in use.
struct scratch_memory {
  stream from;
  std::byte* buffer;  // lent, or null
  std::size_t bytes, used = 0;
  arena const* scratch = nullptr;  // that asks
  bool dry = false;                // addresses are counted, nothing is there

  void* allocate(std::size_t count) {
    if (dry) return reinterpret_cast<void*>((used += count) - count + (std::size_t{1} << 20));
    if (buffer == nullptr) return cuda::allocate(from, count);
    KVEVICT_EXPECTS(used == 0 && count <= bytes, "device: scratch of at least ", scratch->in_use() + count,
                    " bytes is needed and the buffer has ", bytes, "; lend try_out(...).scratch_bytes of that call");
    used = bytes;  // all of it
    return buffer;
  }
  void release(void* block) {
    if (dry) return;
    if (buffer == nullptr)
      cuda::release(from, block);
    else
      used = 0;
  }
  memory_source source() {
    memory_source s;
    s.self = this;
    s.allocate = [](void* self, std::size_t count) { return static_cast<scratch_memory*>(self)->allocate(count); };
    s.release = [](void* self, void* block) { static_cast<scratch_memory*>(self)->release(block); };
    return s;
  }
};

}  // namespace kvevict::inline KVEVICT_ABI::cuda
