// expect: add -fno-finite-math-only
// SPDX-License-Identifier: Apache-2.0
#if !defined(GIVEN)  // else by -ffast-math or -ffinite-math-only
#undef __FINITE_MATH_ONLY__
#define __FINITE_MATH_ONLY__ 1
#endif
#include <kvevict/core/dtype.hpp>
