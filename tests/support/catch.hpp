// SPDX-License-Identifier: Apache-2.0
// One include for Catch2 2 (Debian 12) and 3 (Debian 13).
#pragma once

#if __has_include(<catch2/catch.hpp>)
#include <catch2/catch.hpp>
#else
#include <catch2/catch_all.hpp>
using Catch::Approx;
namespace Catch {
using Matchers::StartsWith;
inline auto Contains(std::string const& text) { return Matchers::ContainsSubstring(text); }
}  // namespace Catch
#endif
