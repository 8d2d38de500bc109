// SPDX-License-Identifier: Apache-2.0
#include "fuzz/session.hpp"

namespace fuzz {
void run_address(input& in) { session<std::byte*>(in).run(); }
}  // namespace fuzz
