// SPDX-License-Identifier: Apache-2.0
#include "fuzz/presets.hpp"

namespace fuzz {
template policy<std::byte*> choose_of_pages(input&, options);
}  // namespace fuzz
