// SPDX-License-Identifier: Apache-2.0
// The device context: a stream, scratch in device memory, and what went wrong.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <kvevict/core/host.hpp>
#include <kvevict/cuda/context/status.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace cuda {

/// What a verb would do on a device: its scratch, and its launches in order.
struct dry_run {
  struct launched {
    char const* kernel;  // the compiler's text, which names it
    extent grid, block;
    std::size_t shared;
  };
  std::size_t scratch_bytes = 0;
  std::vector<launched> launches;
};

/// First argument of every verb on a GPU. All memory of views, evidence and keep sets is device memory; kernels are put
/// into the stream and never waited for.
///
/// Scratch comes from the stream's allocator and only grows; after `reserve(try_out(…).scratch_bytes)`, or the second
/// call of a size, no verb allocates. A context that was given a buffer takes scratch from there alone.
/// Errors   what kernels find wrong stops every later one and is thrown by `wait()`, which resets it; launches raise
///          cuda_error at once.
class device {
 public:
  explicit device(stream s) : device(s, nullptr, 0) {}
  /// Scratch inside [buffer, buffer + bytes), device memory that the caller owns and that is aligned to 256 bytes.
  device(stream s, void* buffer, std::size_t bytes)
      : memory_{s, static_cast<std::byte*>(buffer), bytes}, scratch_(source()) {
    KVEVICT_EXPECTS((buffer != nullptr || bytes == 0) && reinterpret_cast<std::uintptr_t>(buffer) % 256 == 0,
                    "device: a buffer of ", bytes,
                    " bytes is null or not aligned to 256 bytes; align it, or give none");
    record_ = static_cast<status*>(allocate(s, sizeof(status)));
    fill_bytes(s, record_, 0, sizeof(status));
  }
  device(device const&) = delete;
  device& operator=(device const&) = delete;
  ~device() {
    if (record_ != nullptr) release(memory_.from, record_);
  }

  std::size_t block_shared_bytes() const { return block_shared_bytes_; }
  stream queue() const { return memory_.from; }
  arena& scratch() { return scratch_; }
  void reserve(std::size_t bytes) { scratch_.reserve(bytes); }
  watched watch(char const* verb = nullptr) const { return {record_, verb}; }

  template <class Kernel> void launch(extent grid, extent block, std::size_t shared, Kernel const& kernel) const {
    if (volume(grid) == 0) return;
    if (dry_ != nullptr)
      dry_->launches.push_back({name_of_kernel<Kernel>(), grid, block, shared});
    else
      cuda::launch(queue(), grid, block, shared, kernel);
  }
  void copy(void* to, void const* from, std::size_t bytes) const {
    if (bytes != 0 && dry_ == nullptr) copy_on_device(queue(), to, from, bytes);
  }
  void zero(void* p, std::size_t bytes) const {
    if (bytes != 0 && dry_ == nullptr) fill_bytes(queue(), p, 0, bytes);
  }
  /// After kernels that may have refused: later ones see it.
  void settle() const { copy(&record_->stop, &record_->code, sizeof record_->code); }
  bool is_dry() const { return dry_ != nullptr; }

  /// Waits for the stream; raises contract_violation if a kernel since the last wait has refused its input. Nothing has
  /// been moved then.
  void wait() {
    status s{};
    copy_to_host(queue(), &s, record_, sizeof s);
    synchronize(queue());
    if (s.code == 0) return;
    fill_bytes(queue(), record_, 0, sizeof(status));
    violate(s);
  }

  /// What `call(ctx)` would do: the call is made with a context that launches nothing and whose memory does not exist.
  template <class Call> static dry_run try_out(stream s, Call&& call) {
    device ctx(s, nullptr, 0);
    dry_run out;
    ctx.dry_ = &out, ctx.memory_.dry = true;
    call(ctx);
    out.scratch_bytes = ctx.scratch_.high_water();
    return out;
  }

 private:
  struct memory {
    stream from;
    std::byte* buffer;
    std::size_t bytes, used = 0;
    bool dry = false;
  };
  memory_source source() {
    memory_source s;
    s.self = &memory_;
    s.allocate = [](void* self, std::size_t bytes) -> void* {
      auto& m = *static_cast<memory*>(self);
      if (m.dry) return reinterpret_cast<void*>((m.used += bytes) - bytes + (std::size_t{1} << 20));
      if (m.buffer == nullptr) return cuda::allocate(m.from, bytes);
      KVEVICT_EXPECTS(m.used + bytes <= m.bytes, "device: scratch of ", m.used + bytes,
                      " bytes is needed and the buffer has ", m.bytes,
                      "; give try_out(...).scratch_bytes, and reserve them");
      return m.buffer + (m.used += bytes) - bytes;
    };
    s.release = [](void* self, void* block) {
      auto& m = *static_cast<memory*>(self);
      if (m.dry) return;
      if (m.buffer == nullptr)
        cuda::release(m.from, block);
      else
        m.used = 0;  // the arena gives back all its blocks before it takes one again
    };
    return s;
  }

  memory memory_;
  arena scratch_;
  status* record_ = nullptr;
  dry_run* dry_ = nullptr;
  std::size_t block_shared_bytes_ = most_shared_bytes();
};

}  // namespace cuda
}  // namespace KVEVICT_ABI
}  // namespace kvevict
