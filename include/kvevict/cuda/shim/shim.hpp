// SPDX-License-Identifier: Apache-2.0
// The device shim: all that a CUDA kernel of this library may use. It alone holds inline PTX and launches.
//
// A kernel is a function object with pointers and sizes by value; it may say the largest block it is launched with
// (1024 unless it does), how many of them an SM shall hold (least_blocks), and name its pointers, so that they can be
// checked where it is launched:
//
//   struct scale {
//     static constexpr int max_threads = 256;
//     float* x; std::int64_t count; float factor;
//     KVEVICT_DEVICE void operator()(cuda::thread& t) const {
//       std::int64_t const i = std::int64_t{t.block().x} * t.block_size().x + t.index().x;
//       if (i < count) x[i] *= factor;
//     }
//     template <class Check> void pointers(Check check) const { check(x, count); }
//   };
//   cuda::launch(stream, {blocks}, {256}, 0, scale{x, count, 2});
//
// Written twice with one interface: here for nvcc (chosen by __CUDACC__), and in tests/support/simt for a host
// compiler, where KVEVICT_SIMT_EMULATION is the name of the header to include (only tests define it). Nothing of it has
// run on a GPU yet: the real one is compiled by tests/run.sh, the kernels are executed under the emulation. Without
// either this header is empty.
#pragma once

#include <kvevict/cuda/shim/platform.hpp>

#if defined(__CUDACC__)
#include <kvevict/cuda/shim/async_copy.hpp>
#include <kvevict/cuda/shim/atomics.hpp>
#include <kvevict/cuda/shim/convert.hpp>
#include <kvevict/cuda/shim/launch.hpp>
#include <kvevict/cuda/shim/math.hpp>
#include <kvevict/cuda/shim/mma.hpp>
#include <kvevict/cuda/shim/stream.hpp>
#include <kvevict/cuda/shim/thread.hpp>
#include <kvevict/cuda/shim/vector.hpp>
#include <kvevict/cuda/shim/warp.hpp>
#elif defined(KVEVICT_SIMT_EMULATION)
#include KVEVICT_SIMT_EMULATION
#endif
