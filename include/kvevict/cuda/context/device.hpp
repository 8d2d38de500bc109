// SPDX-License-Identifier: Apache-2.0
// The device context: a stream, scratch in device memory, and what went wrong.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <kvevict/core/host.hpp>
#include <kvevict/cuda/context/buffer.hpp>
#include <kvevict/cuda/context/status.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

/// What a verb would do on a device: its scratch, and what it puts into the stream, in order.
struct dry_run {
  enum class kind : std::uint8_t { launch, copy, fill };
  struct step {
    kind what;
    char const* name;  // of a kernel the compiler's text, which names it; else of what is copied or filled
    extent grid, block;
    std::size_t bytes;  // copied or filled; of a kernel its shared memory
  };
  std::size_t scratch_bytes = 0;
  std::vector<step> steps;

  std::size_t count(kind k) const {
    return static_cast<std::size_t>(
        std::count_if(steps.begin(), steps.end(), [k](step const& s) { return s.what == k; }));
  }
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
    expect_sequences(64, 1);
  }
  device(device const&) = delete;
  device& operator=(device const&) = delete;

  std::size_t block_shared_bytes() const { return block_shared_bytes_; }
  stream queue() const { return memory_.from; }
  arena& scratch() { return scratch_; }
  void reserve(std::size_t bytes) { scratch_.reserve(bytes); }
  watched watch(char const* verb = nullptr) const {
    return {reinterpret_cast<std::uint32_t*>(status_.data()), reinterpret_cast<fault_record*>(status_.data()) + 1,
            room_, of_layer_, verb};
  }
  /// A record for each of the sequences of a view, those of all its layers. Every verb says so before it launches.
  void expect_sequences(std::int32_t sequences, std::int32_t layers) {
    of_layer_ = std::max(1, sequences / std::max(1, layers));
    if (sequences <= room_ || is_dry()) return;
    buffer larger;
    larger.grow(queue(), (static_cast<std::size_t>(sequences) + 1) * sizeof(fault_record));
    fill_bytes(queue(), larger.data(), 0, larger.size());
    if (room_ != 0) copy_on_device(queue(), larger.data(), status_.data(), status_.size());
    std::swap(status_, larger), room_ = sequences;
  }

  /// Every launch has a number of its own, by which its kernel knows its own faults.
  template <class Kernel> void launch(extent grid, extent block, std::size_t shared, Kernel kernel) {
    if (volume(grid) == 0) return;
    watch_of(kernel).launch = launched_ = launched_ % watched::most_launches + 1;
    if (dry_ != nullptr)
      dry_->steps.push_back({dry_run::kind::launch, name_of_kernel<Kernel>(), grid, block, shared});
    else
      cuda::launch(queue(), grid, block, shared, kernel);
  }
  void copy(char const* name, void* to, void const* from, std::size_t bytes) const {
    if (bytes == 0) return;
    if (dry_ != nullptr)
      dry_->steps.push_back({dry_run::kind::copy, name, {}, {}, bytes});
    else
      copy_on_device(queue(), to, from, bytes);
  }
  void zero(char const* name, void* p, std::size_t bytes) const {
    if (bytes == 0) return;
    if (dry_ != nullptr)
      dry_->steps.push_back({dry_run::kind::fill, name, {}, {}, bytes});
    else
      fill_bytes(queue(), p, 0, bytes);
  }
  bool is_dry() const { return dry_ != nullptr; }

  /// Waits for the stream; raises contract_violation if a kernel since the last wait has refused its input: the first
  /// sequence's first fault. Nothing has been moved then.
  void wait() {
    std::uint32_t raised = 0;
    copy_to_host(queue(), &raised, status_.data(), sizeof raised);
    synchronize(queue());
    if (raised == 0) return;
    std::vector<fault_record> all(static_cast<std::size_t>(room_) + 1);
    copy_to_host(queue(), all.data(), status_.data(), status_.size());
    synchronize(queue());
    fill_bytes(queue(), status_.data(), 0, status_.size());
    raise(*std::find_if(all.begin() + 1, all.end() - 1, [](fault_record const& r) { return r.place != 0; }));
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
  buffer status_;                         // the word in the first record's place, then a record of each sequence
  std::int32_t room_ = 0, of_layer_ = 1;  // sequences
  std::uint32_t launched_ = 0;
  dry_run* dry_ = nullptr;
  std::size_t block_shared_bytes_ = most_shared_bytes();
};

}  // namespace kvevict::inline KVEVICT_ABI::cuda
