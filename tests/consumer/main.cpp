// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <kvevict/kvevict.hpp>

int main() { std::printf("kvevict %d.%d.%d\n", KVEVICT_VERSION_MAJOR, KVEVICT_VERSION_MINOR, KVEVICT_VERSION_PATCH); }
