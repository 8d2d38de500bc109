// SPDX-License-Identifier: Apache-2.0
// The control: what this folder includes does compile.
#include <kvevict/kvevict.hpp>

static_assert(KVEVICT_VERSION_MAJOR >= 0);
