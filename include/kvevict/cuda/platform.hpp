// SPDX-License-Identifier: Apache-2.0
// How functions of a kernel are marked.
#pragma once

#if defined(__CUDACC__)
#define KVEVICT_DEVICE __device__
#define KVEVICT_HOST_DEVICE __host__ __device__
#define KVEVICT_UNROLL _Pragma("unroll")
#else
#define KVEVICT_DEVICE
#define KVEVICT_HOST_DEVICE
#define KVEVICT_UNROLL
#endif
