// expect: scratch is given back without destructors
// SPDX-License-Identifier: Apache-2.0
#include <kvevict/core/host.hpp>
#include <string>

std::string* words(kvevict::frame& scratch) { return scratch.allocate<std::string>(3); }
