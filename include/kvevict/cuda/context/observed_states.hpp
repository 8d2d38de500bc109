// SPDX-License-Identifier: Apache-2.0
// What observe() makes is the state in the cache, which has no place for a status: the context keeps one for each.
#pragma once

#include <cstdint>
#include <vector>

#include <kvevict/cuda/context/verdict.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

/// The statuses of the states that a context has observed into. One that was refused stays so until that has been told,
/// since the state lacks a step from then on.
class observed_states {
 public:
  /// Bytes of a state, from the first layer's to the last one's first.
  struct memory {
    std::uintptr_t first = 0, last = 0;
  };
  struct of_state {
    memory where;
    std::uint32_t number;  // of all calls that observe into it
    verdict status;
  };

  template <class Next> of_state& find(memory at, Next next_number) {
    for (of_state& o : all_)
      if (o.where.first == at.first && o.where.last == at.last) return o;
    if (all_.size() < most) {
      all_.push_back({at, next_number(), {}});
      return all_.back();
    }
    all_.back().where = {0, ~std::uintptr_t{0}};  // no engine has as many: the rest share one
    return all_.back();
  }
  std::uint32_t number_of(verdict const& status) const {
    for (of_state const& o : all_)
      if (&o.status == &status) return o.number;
    return 0;
  }
  /// f(verdict const&) of all that share bytes with that one.
  template <class F> void each(memory at, F f) const {
    for (of_state const& o : all_)
      if (o.where.first <= at.last && at.first <= o.where.last) f(o.status);
  }
  /// That one is as if nothing had been refused; 0: all.
  void clear(stream s, std::uint32_t number) {
    for (of_state& o : all_)
      if (number == 0 || o.number == number) o.status.clear(s);
  }

 private:
  static constexpr std::size_t most = 1024;
  std::vector<of_state> all_;
};

}  // namespace kvevict::inline KVEVICT_ABI::cuda
