// SPDX-License-Identifier: Apache-2.0
// Every verb of the library in one shape: a call, what the engine owns, and the result. For tests of what is left when
// a call fails in the middle.
#pragma once

#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <kvevict/kvevict.hpp>

#include "support/any_preset.hpp"
#include "support/batch_cache.hpp"
#include "support/gate_case.hpp"
#include "support/keep_sets.hpp"
#include "support/paged_engine.hpp"

namespace support {

using bytes = std::vector<std::byte>;

template <class T> void append_bytes(bytes& to, T const* from, std::size_t count) {
  auto const old = to.size();
  to.resize(old + count * sizeof(T));
  if (count != 0) std::memcpy(to.data() + old, from, count * sizeof(T));
}
template <class T> void append_bytes(bytes& to, std::vector<T> const& from) {
  append_bytes(to, from.data(), from.size());
}

struct verb {
  std::string name;
  std::function<void(kvevict::host&)> call;  // writes the result that it keeps
  std::function<bytes()> owned;              // everything that the engine owns
  std::function<void(bytes const&)> restore;
  std::function<bytes()> result;  // raises contract_violation where there is none
  std::function<void()> forget;   // the result is as before the first call, its memory given back
  bool writes = false;            // what the engine owns
};

namespace verbs {

/// A cache with the batch in it, and what a verb needs beside it.
template <class Entry> struct room {
  batch in;
  hand_in rows;
  attention prompt;
  layouts::cache<Entry> cache;
  std::vector<float> memory;  // of a gate

  room(layouts::layout l, batch b, layouts::cache_shape shape)
      : in(std::move(b)), rows(in), prompt(all_rows(in)), cache(l, std::move(shape)) {
    fill(cache, in);
    if (cache.shape().state_floats > 0)
      cache.fill(kvevict::role::state,
                 [](int b_, int h, int t, int) { return 0.1f * static_cast<float>(b_ + h + t % 7); });
  }
};
template <class Entry = std::int32_t>
std::shared_ptr<room<Entry>> make_room(layouts::layout l, std::int32_t state_floats = 0) {
  batch in = random_batch(91, {.Hq = 4, .H = 2, .D = 8, .N = {30, 30}});
  auto shape = cache_shape_of(in);
  shape.page_size = 8, shape.state_floats = state_floats;
  return std::make_shared<room<Entry>>(l, std::move(in), std::move(shape));
}

using take = std::function<void(verb const&)>;
/// Every preset from one form of evidence, those that read attention each in its own way from all. laws/plan_verbs.cpp
void plans(take const& f);
void observations(take const& f);
/// What is done with a keep set. laws/move_verbs.cpp
void applications(take const& f);

}  // namespace verbs

}  // namespace support
