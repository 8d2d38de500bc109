// SPDX-License-Identifier: Apache-2.0
// How the verbs of verbs.hpp are made.
#pragma once

#include <kvevict/kvevict.hpp>

#include "support/verbs.hpp"

namespace support::verbs {

inline bytes bytes_of(kvevict::keep_set const& keep) {
  bytes out;
  for (std::int64_t r = 0; r < keep.rows(); ++r) {
    auto const row = keep.row(r);
    append_bytes(out, row.data, static_cast<std::size_t>(row.size));
  }
  append_bytes(out, keep.lengths), append_bytes(out, keep.row_begin);
  return out;
}

template <class Entry> bytes bytes_of(kvevict::compacted<Entry> const& done) {
  bytes out;
  append_bytes(out, done.lengths().data, static_cast<std::size_t>(done.lengths().size));
  append_bytes(out, done.freed_pages().data, static_cast<std::size_t>(done.freed_pages().size));
  auto const order = static_cast<std::int64_t>(done.order());
  append_bytes(out, &order, 1);
  return out;
}
inline bytes bytes_of(kvevict::move_plan const& plan) {
  KVEVICT_EXPECTS(!plan.refused, "the plan says that it is none");
  bytes out;
  append_bytes(out, plan.sources), append_bytes(out, plan.destinations), append_bytes(out, plan.row_begin);
  append_bytes(out, plan.lengths), append_bytes(out, plan.lengths_before);
  return out;
}
inline bytes bytes_of(kvevict::replaced const& done) {
  bytes out;
  append_bytes(out, done.slots().data, static_cast<std::size_t>(done.slots().size));
  return out;
}
inline bytes bytes_of(kvevict::evicted const& done) {
  bytes out;
  for (std::int32_t b = 0; b < 2; ++b)  // of a room
    for (std::int32_t h = 0; h < 2; ++h) {
      auto const runs = done(b, h);
      append_bytes(out, runs.data, static_cast<std::size_t>(runs.size));
    }
  return out;
}
template <class Entry> bytes bytes_of(kvevict::new_table<Entry> const& done) {
  bytes out;
  append_bytes(out, done.lengths().data, static_cast<std::size_t>(done.lengths().size));
  append_bytes(out, done.entries().data, static_cast<std::size_t>(done.entries().size));
  append_bytes(out, done.released().data, static_cast<std::size_t>(done.released().size));
  return out;
}
template <class Entry> bytes bytes_of(kvevict::relocated<Entry> const& done) {
  return bytes_of(static_cast<kvevict::new_table<Entry> const&>(done));
}
inline bytes bytes_of(std::vector<float> const& values) {
  bytes out;
  append_bytes(out, values);
  return out;
}

struct nothing {};
inline bytes bytes_of(nothing) { return {}; }

/// call(ctx, room, result).
template <class Result, class Entry, class Call>
verb make(std::string name, std::shared_ptr<room<Entry>> r, bool writes, Call call) {
  auto const result = std::make_shared<Result>();
  verb out;
  out.name = std::move(name), out.writes = writes;
  out.call = [=](kvevict::host& ctx) { call(ctx, *r, *result); };
  out.owned = [=] {
    bytes all;
    for (bytes const& b : r->cache.snapshot()) append_bytes(all, b);
    append_bytes(all, r->memory);
    return all;
  };
  out.restore = [=](bytes const& from) {
    auto buffers = r->cache.snapshot();
    auto at = from.begin();
    for (bytes& b : buffers) {
      auto const end = at + static_cast<std::ptrdiff_t>(b.size());
      std::copy(at, end, b.begin()), at = end;
    }
    r->cache.restore(buffers);
    if (!r->memory.empty()) std::memcpy(r->memory.data(), &*at, r->memory.size() * sizeof(float));
  };
  out.result = [=] { return bytes_of(*result); };
  out.forget = [=] { *result = Result(); };
  return out;
}

}  // namespace support::verbs
