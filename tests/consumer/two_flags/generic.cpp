// SPDX-License-Identifier: Apache-2.0
#include "work.hpp"

float generic() { return work(); }
