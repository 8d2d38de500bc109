// expect: cuda.cuh needs C++20: add -std=c++20
// SPDX-License-Identifier: Apache-2.0
#if !defined(__NVCC__)  // else nvcc, with -std=c++17
#undef __cplusplus
#define __cplusplus 201703L
#endif
#include <kvevict/cuda.cuh>
