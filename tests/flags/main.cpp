// SPDX-License-Identifier: Apache-2.0
// Runs the unit `plain`; others are linked, and must not be run.
#include <cstdio>

int plain();

int main() {
  int const got = plain();
  if (got / 1000 != 1) std::puts("the plain unit does not catch its exception");
  return got / 1000 == 1 && got % 1000 > 0 ? 0 : 1;
}
