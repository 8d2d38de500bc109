// SPDX-License-Identifier: Apache-2.0
// The one source of the version; CMake reads it from here.
#pragma once

#define KVEVICT_VERSION_MAJOR 0
#define KVEVICT_VERSION_MINOR 1
#define KVEVICT_VERSION_PATCH 0
