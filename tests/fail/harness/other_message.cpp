// expect: a text that no compiler prints
// SPDX-License-Identifier: Apache-2.0
static_assert(sizeof(char) == 2, "another text");
