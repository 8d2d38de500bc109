// SPDX-License-Identifier: Apache-2.0
// How functions of a kernel are marked.
#pragma once

#include <kvevict/core/host_device.hpp>

#if defined(__CUDACC__)
#define KVEVICT_DEVICE __device__
#define KVEVICT_CALL __device__ __noinline__
#define KVEVICT_UNROLL _Pragma("unroll")
#define KVEVICT_KEEP_LOOP _Pragma("unroll 1")
#else
#define KVEVICT_DEVICE
#define KVEVICT_CALL
#define KVEVICT_UNROLL
#define KVEVICT_KEEP_LOOP
#endif
