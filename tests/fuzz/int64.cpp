// SPDX-License-Identifier: Apache-2.0
#include "fuzz/session.hpp"

namespace fuzz {
void run_int64(input& in) { session<std::int64_t>(in).run(); }
}  // namespace fuzz
