// SPDX-License-Identifier: Apache-2.0
// Marks a function that host code and device kernels may both call.
#pragma once

#if defined(__CUDACC__)
#define KVEVICT_HOST_DEVICE __host__ __device__
#else
#define KVEVICT_HOST_DEVICE
#endif
