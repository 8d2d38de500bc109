// SPDX-License-Identifier: Apache-2.0
// The score stage: what makes a type one.
#pragma once

#include <type_traits>

#include <kvevict/core/score_rows.hpp>
#include <kvevict/core/stage.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace stages {

struct called {
  void operator()() const;
};
template <class T> struct twice_called : T, called {};  // where T has a call operator, its name is ambiguous here

/// A class with a call operator of any kind; what it can be called with is known to a verb alone.
template <class T>
concept callable = std::is_class_v<T> &&(std::is_final_v<T> || !requires { &twice_called<T>::operator(); });

}  // namespace stages

namespace score {

/// A class with a call operator that names no other kind of stage.
template <class Stage>
concept stage = std::is_same_v<stage_of<Stage>, stages::score> && stages::callable<Stage>;

/// It fills the rows' scores in that context from that evidence.
template <class Stage, class Context, class Evidence>
concept stage_for = requires(Stage const& score, Context& ctx, Evidence const& e, score_rows& rows) {
  score(ctx, e, rows);
};

}  // namespace score
}  // namespace KVEVICT_ABI
}  // namespace kvevict
