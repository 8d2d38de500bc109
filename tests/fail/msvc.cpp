// expect: compile with clang-cl
// SPDX-License-Identifier: Apache-2.0
#undef __clang__
#define _MSC_VER 1944
#include <kvevict/core/abi.hpp>
