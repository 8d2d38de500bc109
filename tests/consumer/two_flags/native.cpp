// SPDX-License-Identifier: Apache-2.0
#include "work.hpp"

int native() { return work(); }
