// SPDX-License-Identifier: Apache-2.0
#include "fuzz/session.hpp"

namespace fuzz {
void run_int32(input& in) { session<std::int32_t>(in).run(); }
}  // namespace fuzz
