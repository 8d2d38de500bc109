// expect: static assertion
// SPDX-License-Identifier: Apache-2.0
