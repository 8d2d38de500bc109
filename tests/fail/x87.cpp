// expect: add -msse2 -mfpmath=sse
// SPDX-License-Identifier: Apache-2.0
#undef __SSE2_MATH__
#define __i386__ 1
#include <kvevict/core/abi.hpp>
