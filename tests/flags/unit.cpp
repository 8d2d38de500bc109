// SPDX-License-Identifier: Apache-2.0
// One unit; -DUNIT=name says which.
#include <flags/path.hpp>

int UNIT() { return 1000 * catches() + whole_path(); }
