// SPDX-License-Identifier: Apache-2.0
// Streams and device memory. nvcc's half of the layer (see shim.hpp): not run on a GPU yet.
#pragma once

#include <kvevict/cuda/shim/extent.hpp>

#if defined(__CUDACC__)

#include <cuda_runtime_api.h>

namespace kvevict::inline KVEVICT_ABI::cuda {

/// Raises cuda_error unless the runtime said yes; the runtime then forgets it, so that the engine's own next check does
/// not find it.
inline void require(cudaError_t status, char const* call, char const* remedy) {
  if (status == cudaSuccess) return;
  static_cast<void>(cudaGetLastError());
  raise(std::string(call) + ": " + cudaGetErrorName(status) + " (" + cudaGetErrorString(status) + "); " + remedy);
}

/// A stream that somebody else owns: what is put into it runs in order, after the call has returned.
class stream {
 public:
  stream(cudaStream_t handle) : handle_(handle) {}
  cudaStream_t handle() const { return handle_; }

 private:
  cudaStream_t handle_;
};

/// A stream of one's own; waits for its work when it goes.
class owned_stream {
 public:
  owned_stream() {
    require(cudaStreamCreateWithFlags(&handle_, cudaStreamNonBlocking), "create a stream", "is there a device?");
  }
  owned_stream(owned_stream const&) = delete;
  owned_stream& operator=(owned_stream const&) = delete;
  ~owned_stream() {
    static_cast<void>(cudaStreamSynchronize(handle_));
    static_cast<void>(cudaStreamDestroy(handle_));
  }
  operator stream() const { return stream(handle_); }

 private:
  cudaStream_t handle_ = nullptr;
};

/// Shared bytes that a block of the current device may have, the kernel's own arrays and those of the launch together.
inline std::size_t most_shared_bytes() {
  int device = 0, bytes = 0;
  require(cudaGetDevice(&device), "ask for the device", "is there one?");
  require(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "ask for its shared memory",
          "is there a device?");
  return static_cast<std::size_t>(bytes);
}

/// Waits for the stream's work; errors of its kernels surface here.
inline void synchronize(stream s) {
  require(cudaStreamSynchronize(s.handle()), "synchronize",
          "a kernel before it failed; run compute-sanitizer to see which");
}

/// Device memory, not initialised, aligned to 256 bytes; allocated and given back in the order of the stream. None for
/// no bytes.
/// Errors   cuda_error, also while the stream is captured: that memory would be the graph's own, and gone with it.
inline void* allocate(stream s, std::size_t bytes) {
  void* p = nullptr;
  if (bytes == 0) return p;
  cudaStreamCaptureStatus capture;
  require(cudaStreamIsCapturing(s.handle(), &capture), "allocate device memory", "is the stream one of this device?");
  if (capture != cudaStreamCaptureStatusNone)
    raise("allocate device memory: the stream is being captured and " + std::to_string(bytes) +
          " bytes are missing; make the calls once before the capture");
  require(cudaMallocAsync(&p, bytes, s.handle()), "allocate device memory", "free some, or provide a smaller batch");
  return p;
}
/// Never raises, as destructors call it: after a kernel's error, which synchronize raises, or at the program's end
/// there is nothing to give back.
inline void release(stream s, void* p) noexcept {
  if (p != nullptr && cudaFreeAsync(p, s.handle()) != cudaSuccess) static_cast<void>(cudaGetLastError());
}

/// The host's memory must stay, and be left alone, until the stream is synchronized.
inline void copy_to_device(stream s, void* device, void const* host, std::size_t bytes) {
  if (bytes != 0)
    require(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, s.handle()), "copy to the device",
            "check both pointers and the size");
}
inline void copy_to_host(stream s, void* host, void const* device, std::size_t bytes) {
  if (bytes != 0)
    require(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, s.handle()), "copy to the host",
            "check both pointers and the size");
}
inline void copy_on_device(stream s, void* to, void const* from, std::size_t bytes) {
  if (bytes != 0)
    require(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, s.handle()), "copy on the device",
            "check both pointers and the size");
}
inline void fill_bytes(stream s, void* device, unsigned char value, std::size_t bytes) {
  if (bytes != 0)
    require(cudaMemsetAsync(device, value, bytes, s.handle()), "fill device memory", "check the pointer and the size");
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda

#endif
