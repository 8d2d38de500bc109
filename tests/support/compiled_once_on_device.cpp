// SPDX-License-Identifier: Apache-2.0
#include "support/compiled_once_on_device.hpp"

KVEVICT_ONCE_ON_DEVICE(template, std::int32_t)
KVEVICT_ONCE_ON_DEVICE(template, std::byte*)
