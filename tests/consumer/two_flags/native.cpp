// SPDX-License-Identifier: Apache-2.0
#include "work.hpp"

float native() { return work(); }
