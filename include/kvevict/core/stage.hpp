// SPDX-License-Identifier: Apache-2.0
// The kinds of stage that a policy is made of. A type without a `stage` is a score.
#pragma once

#include <kvevict/core/abi.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace stages {

struct layers {};
struct protect {};
struct score {};
struct heads {};
struct select {};

template <class Stage, class = void> struct kind { using type = score; };
template <class Stage> struct kind<Stage, decltype(void(typename Stage::stage{}))> {
  using type = typename Stage::stage;
};

template <class Kind> inline constexpr bool known = false;
template <> inline constexpr bool known<layers> = true;
template <> inline constexpr bool known<protect> = true;
template <> inline constexpr bool known<score> = true;
template <> inline constexpr bool known<heads> = true;
template <> inline constexpr bool known<select> = true;

}  // namespace stages

template <class Stage> using stage_of = typename stages::kind<Stage>::type;

}  // namespace KVEVICT_ABI
}  // namespace kvevict
