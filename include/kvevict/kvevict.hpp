// SPDX-License-Identifier: Apache-2.0
// Everything that runs on the host.
#pragma once

#include <kvevict/version.hpp>
