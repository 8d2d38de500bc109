// SPDX-License-Identifier: Apache-2.0
// One call in both contexts: the same words where it is refused, the same bytes where it is not.
#pragma once

#include <limits>

#include <kvevict/cuda.cuh>
#include <kvevict/kvevict.hpp>

#include "simt/device_cache.hpp"
#include "support/batch_cache.hpp"
#include "support/catch.hpp"
#include "support/keep_sets.hpp"

namespace simt_test {
using namespace support;
using kvevict::role;
using layouts::layout;
namespace cuda = kvevict::cuda;
namespace presets = kvevict::presets;

inline constexpr float no_number = std::numeric_limits<float>::quiet_NaN();
inline constexpr kvevict::budget twenty{.tokens_per_head = 20, .layer = 2, .layer_count = 5};
inline constexpr auto snapkv = presets::snapkv({.window = 8, .pool = 1});
inline constexpr auto streaming = presets::streaming_llm();
inline constexpr auto h2o = presets::h2o();
inline constexpr auto ahakv = presets::ahakv({.recent = 8});

/// Hands the host what it has.
struct on_host {
  kvevict::host ctx;
  template <class Rows> Rows rows(Rows const& r) { return r; }
  template <class T> T const* put(std::vector<T> const& x) { return x.data(); }
  kvevict::gate_weights gate(kvevict::gate_weights const& w) { return w; }
  kvevict::keep_set const& keep(kvevict::keep_set const& k) { return k; }
  template <class View> void compact(View const& v, kvevict::keep_set const& k, kvevict::compaction mode) {
    kvevict::compact(ctx, v, k, mode);
  }
  template <class View> void replace(View const& v, kvevict::keep_set const& k) { kvevict::replace(ctx, v, k); }
  void finish() {}
};

/// Copies it to the device, for so many sequences; `spare`: so many rows more may be there than are.
struct on_gpu {
  std::int32_t sequences = 2, spare = 0;
  cuda::device ctx{default_stream()};
  device_memory memory{};
  template <class Rows> Rows rows(Rows const& r) {
    Rows out = on_device_rows(memory, r, sequences);
    out.most_rows += spare;
    return out;
  }
  kvevict::feature_rows rows(kvevict::feature_rows const& r) {
    kvevict::feature_rows out = on_device_rows(memory, r, sequences);
    kvevict::gate_memory& m = out.memory;
    if (m.rows != nullptr)
      m.rows = memory.put(m.rows, static_cast<std::size_t>(sequences * m.seq_stride)),
      m.tokens = memory.put(m.tokens, static_cast<std::size_t>(sequences));
    out.most_rows += spare;
    return out;
  }
  template <class T> T const* put(std::vector<T> const& x) { return memory.put(x); }
  kvevict::gate_weights gate(kvevict::gate_weights const& w) { return on_device_gate(memory, w); }
  template <class View> void compact(View const& v, kvevict::keep_set const& k, kvevict::compaction mode) {
    cuda::keep_set there;
    there.assign(ctx, k);
    cuda::compacted<typename View::table_entry> done;
    kvevict::compact(ctx, v, there, mode, done);
    done.wait(ctx);
  }
  template <class View> void replace(View const& v, kvevict::keep_set const& k) {
    cuda::keep_set there;
    there.assign(ctx, k);
    on_device<std::int32_t> const slots(std::vector<std::int32_t>(static_cast<std::size_t>(v.rows())));
    kvevict::replace(ctx, v, there, slots.data());
    ctx.wait();
  }
  void finish() { ctx.wait(); }
};

/// Two sequences of 40 and 30 tokens, with state and positions, for both contexts.
struct room {
  batch in = random_batch(71, {.Hq = 4, .H = 2, .D = 8, .N = {40, 30}});
  layouts::cache<std::int32_t> cache;

  explicit room(layout l = layout::head_pages, std::int32_t floats = 1, std::int32_t page_size = 16)
      : cache(l, shape(floats, page_size)) {
    fill(cache, in);
    cache.fill(role::state, [](int b, int h, int t, int c) { return b + h + t + c; });
  }
  layouts::cache_shape shape(std::int32_t floats, std::int32_t page_size) const {
    auto out = cache_shape_of(in);
    out.state_floats = floats, out.page_size = page_size;
    return out;
  }
};

/// call(context, view) by both: the same words, which hold `what`, and no byte is another; empty: both accept, and the
/// same bytes are there.
template <class Cache, class Call> void alike(Cache& cache, std::string const& what, Call const& call) {
  using entry = typename std::decay_t<decltype(cache.view)>::table_entry;
  auto const before = cache.snapshot();
  device_cache<entry> there(cache);
  on_host host;
  std::string const said = refusal([&] { call(host, cache.view), host.finish(); });
  for (std::int32_t const spare : {0, 5}) {
    if (spare != 0 && what.empty()) break;  // it has been written
    on_gpu gpu{cache.view.sequences(), spare};
    std::string const on_device = refusal([&] { call(gpu, there.view), gpu.finish(); });
    CAPTURE(what, spare);
    CHECK(on_device == said);
    CHECK((what.empty() ? said.empty() : said.find(what) != std::string::npos));
    CHECK((there.snapshot() == cache.snapshot()));
    if (!what.empty()) CHECK((cache.snapshot() == before));
  }
}

template <class Policy, class Rows>
void plans_alike(room& r, Policy const& p, Rows const& rows, std::string const& what, kvevict::budget b = twenty) {
  alike(r.cache, what, [&](auto& on, auto const& view) { plan(on.ctx, p, prompt(view, on.rows(rows)), b); });
}
template <class Policy, class Rows>
void observes_alike(room& r, Policy const& p, Rows const& rows, std::string const& what, kvevict::budget b = twenty) {
  alike(r.cache, what, [&](auto& on, auto const& view) { observe(on.ctx, p, step(view, on.rows(rows)), b); });
}
template <class Cache> void contents_alike(Cache& cache, std::string const& what, kvevict::budget b = twenty) {
  alike(cache, what, [&](auto& on, auto const& view) { plan(on.ctx, streaming, contents(view), b); });
}

}  // namespace simt_test
