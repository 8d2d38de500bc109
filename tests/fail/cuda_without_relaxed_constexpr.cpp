// expect: constexpr functions of the host: add --expt-relaxed-constexpr
// SPDX-License-Identifier: Apache-2.0
#if !defined(__NVCC__)  // else nvcc, without the flag
#define __NVCC__
#endif
#include <kvevict/cuda.cuh>
