// SPDX-License-Identifier: Apache-2.0
// The same work, compiled by generic.cpp and by native.cpp.
#include <kvevict/kvevict.hpp>

static int work() { return KVEVICT_VERSION_MINOR; }
