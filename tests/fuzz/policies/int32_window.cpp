// SPDX-License-Identifier: Apache-2.0
#include "fuzz/presets.hpp"

namespace fuzz {
template policy<std::int32_t> choose_window(input&, options);
}  // namespace fuzz
