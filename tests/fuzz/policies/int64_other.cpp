// SPDX-License-Identifier: Apache-2.0
#include "fuzz/presets.hpp"

namespace fuzz {
template policy<std::int64_t> choose_other(input&, options, gate const&);
}  // namespace fuzz
