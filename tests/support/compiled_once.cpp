// SPDX-License-Identifier: Apache-2.0
#include "support/compiled_once.hpp"

KVEVICT_ONCE(template, std::int32_t)
KVEVICT_ONCE(template, std::byte*)
