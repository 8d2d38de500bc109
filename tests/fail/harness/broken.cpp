// SPDX-License-Identifier: Apache-2.0
// No expected text: this has to compile, and does not.
static_assert(sizeof(char) == 2, "broken");
