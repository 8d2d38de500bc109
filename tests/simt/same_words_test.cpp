// SPDX-License-Identifier: Apache-2.0
// What is wrong is refused by both contexts in the same words, case by case; and what one accepts the other does.
#include <functional>
#include <limits>

#include <kvevict/cuda.cuh>
#include <kvevict/kvevict.hpp>

#include "simt/device_cache.hpp"
#include "support/batch_cache.hpp"
#include "support/catch.hpp"
#include "support/gate_case.hpp"
#include "support/keep_sets.hpp"

using namespace simt_test;
using namespace support;
using kvevict::role;
using layouts::layout;
namespace cuda = kvevict::cuda;
namespace presets = kvevict::presets;

namespace {

constexpr float no_number = std::numeric_limits<float>::quiet_NaN();
constexpr kvevict::budget twenty{.tokens_per_head = 20, .layer = 2, .layer_count = 5};
constexpr auto snapkv = presets::snapkv({.window = 8, .pool = 1});
constexpr auto streaming = presets::streaming_llm();
constexpr auto h2o = presets::h2o();
constexpr auto ahakv = presets::ahakv({.recent = 8});

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

/// Copies it to the device; `spare`: so many rows more may be there than are.
struct on_gpu {
  cuda::device ctx{default_stream()};
  device_memory memory;
  std::int32_t spare = 0;
  template <class Rows> Rows rows(Rows const& r) {
    Rows out = on_device_rows(memory, r, 2);
    out.most_rows += spare;
    return out;
  }
  kvevict::feature_rows rows(kvevict::feature_rows const& r) {
    kvevict::feature_rows out = on_device_rows(memory, r, 2);
    kvevict::gate_memory& m = out.memory;
    if (m.rows != nullptr)
      m.rows = memory.put(m.rows, static_cast<std::size_t>(2 * m.seq_stride)), m.tokens = memory.put(m.tokens, 2);
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

  explicit room(layout l = layout::head_pages, std::int32_t floats = 1) : cache(l, shape(floats)) {
    fill(cache, in);
    cache.fill(role::state, [](int b, int h, int t, int c) { return b + h + t + c; });
  }
  layouts::cache_shape shape(std::int32_t floats) const {
    auto out = cache_shape_of(in);
    out.state_floats = floats;
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
    on_gpu gpu;
    gpu.spare = spare;
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

}  // namespace

TEST_CASE("both contexts say the same of lengths, prefixes and pages") {
  room r;
  auto& n = r.cache.lengths();
  for (auto const& [wrong, what] : {std::pair(-1, "the length of sequence 1, head 1 is -1"),
                                    std::pair(1000, "sequence 1, head 1 has 1000 tokens, but its table addresses")}) {
    std::int32_t const right = std::exchange(n[3], wrong);
    contents_alike(r.cache, what);
    n[3] = right;
  }
  std::vector<std::int32_t> const fixed{0, 5};
  r.cache.view.read_only = fixed.data();
  contents_alike(r.cache, "read_only[1] = 5 tokens");
  r.cache.view.read_only = nullptr;
  auto& table = r.cache.entries();
  auto const at = [&](int b, int h) {
    return static_cast<std::size_t>(r.cache.view.pages.entries_of(b, h) - table.data());
  };
  auto const sound = table;
  auto const says = [&](std::size_t place, std::int32_t id, std::string const& what) {
    table[place] = id;
    contents_alike(r.cache, what);
    table = sound;
  };
  says(at(1, 1) + 1, 1 << 20, "page 1 of sequence 1, head 1 has id 1048576, but component k has");
  says(at(1, 0), -3, "page 0 of sequence 1, head 0 has id -3, but component k has");
  says(at(1, 1) + 1, table[at(1, 1)], "pages 0 and 1 of sequence 1, head 1 are the same page");
  says(at(1, 1), table[at(0, 1) + 2], "page 0 of sequence 1, head 1 is also page 2 of sequence 0, head 1");
  says(at(0, 0), table[at(1, 1) + 1], "page 1 of sequence 1, head 1 is also page 0 of sequence 0, head 0");
  room shared(layout::hnd);
  shared.cache.view.lengths.head_stride = 1, shared.cache.view.lengths.seq_stride = 2;
  std::vector<std::int32_t> lengths{40, 40, 30, 29};
  shared.cache.lengths() = lengths;
  shared.cache.view.lengths.data = shared.cache.lengths().data();
  contents_alike(shared.cache, "heads 0 and 1 of sequence 1 have 30 and 29 tokens");
  layouts::cache_shape shape;
  shape.lengths = {40, 30}, shape.heads = 2;
  layouts::cache<std::byte*> addresses(layout::pointers, shape);
  std::byte*& entry = addresses.entries()[0];
  std::byte* const page = entry;
  entry = nullptr;
  contents_alike(addresses, "page 0 of sequence 0, head 0 is null");
  entry = page + 1;
  contents_alike(addresses, "page 0 of sequence 0, head 0 is not aligned to the elements of component k");
  entry = addresses.entries()[1];
  contents_alike(addresses, "pages 0 and 1 of sequence 0, head 0 are the same page");
}

TEST_CASE("both contexts say the same of rows of evidence") {
  room r;
  attention const all = all_rows(r.in), few = last_rows(r.in, 3);
  auto const with = [](auto rows, auto change) { return change(rows), rows; };
  plans_alike(r, snapkv, few.queries(), "sequence 0 provides 3 query rows and the window needs 8");
  plans_alike(r, snapkv, few.rows(), "sequence 0 provides 3 softmax rows and the score reads 8");
  plans_alike(r, h2o, few.queries(), "sequence 0 provides 3 query rows for 40 tokens");
  plans_alike(r, h2o, few.rows(), "sequence 0 provides 3 softmax rows for 40 tokens");
  plans_alike(r, snapkv, with(all.rows(), [](auto& a) { a.slots = 33; }),
              "a softmax row has 33 floats and sequence 0, head 0 40 tokens");
  plans_alike(r, snapkv, with(all.queries(), [](auto& q) { q.heads = 3; }), "3 query heads are not a multiple of 2");
  for (auto const& [begin, what] :
       {std::pair(std::vector<std::int32_t>{-40, 0, 30}, "row_begin starts at -40"),
        std::pair(std::vector<std::int32_t>{0, 40, 30}, "row_begin descends at sequence 1"),
        std::pair(std::vector<std::int32_t>{0, 0, 30}, "sequence 0 provides 0 query rows and the window needs 8")})
    alike(r.cache, what, [&, &begin = begin](auto& on, auto const& view) {
      auto q = on.rows(all.queries());
      q.row_begin = on.put(begin);
      plan(on.ctx, snapkv, prompt(view, q), twenty);
    });
  alike(r.cache, "rows without data", [&](auto& on, auto const& view) {
    auto q = on.rows(all.queries());
    q.data = nullptr;
    plan(on.ctx, snapkv, prompt(view, q), twenty);
  });
  alike(r.cache, "evidence: sequence 1, head 0: an attention weight is above 1", [&](auto& on, auto const& view) {
    auto lse = all.lse;
    for (std::size_t t = 66; t < 70; ++t) lse[t * 4] = lse[t * 4 + 1] = -30.0f;
    plan(on.ctx, snapkv, prompt(view, on.rows(all.queries())).with_lse(on.put(lse), all.lse_stride(), 1), twenty);
  });
  for (float const wrong : {-0.5f, 1.5f}) {
    attention bad = all;
    bad.weights[bad.weights.size() - 35] = wrong;  // of the last row's last head, which belongs to KV head 1
    plans_alike(r, snapkv, bad.rows(), "evidence: sequence 1, head 1: a softmax weight is above 1 or below 0");
  }
}

TEST_CASE("both contexts say the same of budgets, positions and scores") {
  room r;
  attention const all = all_rows(r.in), one = last_rows(r.in, 1), few = last_rows(r.in, 3);
  std::vector<std::int32_t> const some{20, -5}, small{20, 3};
  for (auto const& [each, what] : {std::pair(&some, "a budget of -5 tokens for sequence 1"),
                                   std::pair(&small,
                                             "a budget of 3 tokens is below the 5 protected tokens of "
                                             "sequence 1 (4 at the front, 1 recent)")})
    alike(r.cache, what, [&, &each = each](auto& on, auto const& view) {
      kvevict::budget b = twenty;
      b.per_sequence = on.put(*each);
      plan(on.ctx, presets::random({.sinks = 4, .recent = 1}), contents(view), b);
    });
  observes_alike(r, h2o, all.queries(), "sequence 1 provides 30 rows and sequence 0 40");
  observes_alike(r, h2o, few.queries(), "a budget of -1 tokens for sequence 0",
                 {.tokens_per_head = -1, .layer = 2, .layer_count = 5});
  attention early = few;
  early.positions[4] = -7;
  observes_alike(r, h2o, early.rows(), "a position of sequence 1 is -7");
  auto none = few.queries();
  std::vector<std::int32_t> const nothing{0, 0, 0};
  none.row_begin = nothing.data();
  observes_alike(r, h2o, none, "observe: no rows for 40 tokens");
  room more;
  for (auto& n : more.cache.lengths()) n = 2;
  observes_alike(more, h2o, few.queries(), "observe: 3 rows for 2 tokens");
  room scattered;
  scattered.cache.view.order = kvevict::row_order::scattered;
  observes_alike(scattered, h2o, few.queries(), "only single steps can be observed");
  scattered.cache.fill(role::position, [](int, int h, int t, int) { return h == 1 && t > 5 ? 5 : t; });
  alike(scattered.cache, "plan: the positions of sequence 0, head 1 are not distinct", [&](auto& on, auto const& view) {
    plan(on.ctx, presets::random({.sinks = 4, .recent = 1}), contents(view), twenty);
  });
  r.cache.set(*r.cache.view.find(role::k), 1, 1, 9, 3, no_number);
  plans_alike(r, snapkv, all.queries(), "plan: the score of token 0 of sequence 1, head 1 in layer 2 is NaN");
  observes_alike(r, h2o, few.queries(), "observe: the score of token 0 of sequence 1, head 1 in layer 2 is NaN");
  observes_alike(r, h2o, one.queries(), "observe: the score of token 0 of sequence 1, head 1 in layer 2 is NaN");
}

TEST_CASE("both contexts say the same of gates") {
  room r;
  gate_case const gate({.N = {40, 30}, .H = 2});
  auto const says = [&](hidden const& x, std::vector<std::int32_t> const& tokens, std::int32_t capacity,
                        kvevict::gate_mask sees, std::string const& what, bool observed) {
    alike(r.cache, what, [&](auto& on, auto const& view) {
      gate_rows memory = gate.memory(capacity);
      memory.tokens = tokens;
      auto policy = presets::attention_gate(on.gate(gate.weights()));
      policy.score.sees = sees;
      auto const rows = on.rows(x.rows(tokens.empty() ? kvevict::gate_memory{} : memory.view()));
      if (observed)
        observe(on.ctx, policy, prompt(view, rows), {.tokens_per_head = 40});
      else
        plan(on.ctx, policy, prompt(view, rows), {.tokens_per_head = 40});
    });
  };
  auto const causal = kvevict::gate_mask::causal, both = kvevict::gate_mask::bidirectional;
  hidden const all = gate.states({0, 0}, {40, 30}), part = gate.states({0, 0}, {40, 29});
  says(part, {}, 40, causal, "gate: sequence 1 provides 29 hidden states for 30 tokens in order", false);
  says(all, {0, 3}, 60, causal, "gate: the memory already holds 3 tokens of sequence 1", false);
  says(all, {0, 15}, 42, causal, "gate: 15 + 30 tokens of sequence 1 do not fit the memory's 42", true);
  says(all, {0, 3}, 42, both, "gate: sequence 1 continues after 3 tokens", true);
  gate_case broken({.N = {40, 30}, .H = 2});
  broken.X[1][4][2] = std::numeric_limits<double>::quiet_NaN();
  broken.store();
  says(broken.states({0, 0}, {40, 30}), {}, 40, causal, "gate: a keep probability is not a number", false);
}

TEST_CASE("both contexts say the same of keep sets") {
  auto const first = [](std::int32_t n, std::int32_t without = -1) {
    std::vector<std::int32_t> out;
    for (std::int32_t i = 0; i < n; ++i)
      if (i != without) out.push_back(i);
    return out;
  };
  room apart, shared(layout::hnd);
  auto const says = [&](auto& cache, std::vector<std::vector<std::int32_t>> const& rows, std::string const& compacted,
                        std::string const& replaced, std::int32_t stale = 0) {
    auto keep = keep_of(cache.view, rows);
    keep.lengths[3] -= stale;
    if (compacted != "-")
      for (auto const mode : {kvevict::compaction::stable, kvevict::compaction::fill_holes})
        alike(cache, "compact: " + compacted, [&](auto& on, auto const& view) { on.compact(view, keep, mode); });
    if (replaced != "-")
      alike(cache, "replace: " + replaced, [&](auto& on, auto const& view) { on.replace(view, keep); });
  };
  says(apart.cache, {first(40), first(39), first(30), first(29)},
       "sequence 1, head 1 has 30 tokens, but the keep set was planned for 29",
       "sequence 1, head 1 has 30 tokens, but the keep set was planned for 29", 1);
  std::vector<std::int32_t> disorder = first(29);
  std::swap(disorder[4], disorder[20]);
  says(apart.cache, {first(40), first(39), disorder, first(29)}, "the kept tokens of sequence 1, head 0",
       "the kept tokens of sequence 1, head 0");
  says(apart.cache, {first(40), first(30), first(29), first(29)}, "-", "sequence 0, head 1 evicts 10 tokens");
  says(shared.cache, {first(40), first(40), first(30), first(29)}, "heads 0 and 1 of sequence 1 keep 30 and 29 tokens",
       "heads 0 and 1 of sequence 1 keep 30 and 29 tokens");
  std::vector<std::int32_t> const fixed{0, 16};
  shared.cache.view.read_only = fixed.data();
  says(shared.cache, {first(40, 3), first(40, 3), first(30, 9), first(30, 9)},
       "the keep set drops a token of the read-only prefix of sequence 1, head 0 (16",
       "the keep set drops a token of the read-only prefix of sequence 1, head 0 (16");
  shared.cache.view.read_only = nullptr;
  for (std::int32_t c = 0; c < shared.cache.view.component_count; ++c)
    if (auto& it = shared.cache.view.components[static_cast<std::size_t>(c)]; it.what == role::state)
      it.rows.head_stride = 0;
  auto const keep = keep_of(shared.cache.view, {first(40, 3), first(40, 4), first(30), first(30)});
  alike(shared.cache, "move_rows: heads 0 and 1 of sequence 0 move different tokens, but component state",
        [&](auto& on, auto const& view) { on.compact(view, keep, kvevict::compaction::stable); });
  alike(shared.cache, "replace: heads 0 and 1 of sequence 0 evict different tokens, but component state",
        [&](auto& on, auto const& view) { on.replace(view, keep); });
  apart.cache.view.components[1].scope = kvevict::quant_scope::page_channel;
  says(apart.cache, {first(40), first(40), first(30, 4), first(30)},
       "component v is quantised per page and channel, so its tokens cannot move",
       "component v is quantised per page and channel, so a slot cannot take another token");
}

TEST_CASE("more rows may be announced than there are, and a batch may be wholly idle") {
  auto const same_state = [](auto const& policy, std::int32_t floats, std::size_t rows, bool scattered) {
    room r(layout::head_pages, floats), again(layout::head_pages, floats);
    attention const newest = last_rows(r.in, rows);
    std::vector<std::vector<std::vector<std::byte>>> after;
    for (std::int32_t const spare : {0, 1, 5, 40}) {
      device_cache<std::int32_t> there(r.cache);
      if (scattered) there.view.order = kvevict::row_order::scattered;
      on_gpu gpu;
      gpu.spare = spare;
      CHECK(refusal([&] {
              observe(gpu.ctx, policy, step(there.view, gpu.rows(newest.queries())), twenty);
              gpu.finish();
              observe(gpu.ctx, policy, step(there.view, gpu.rows(newest.rows())), twenty);
              gpu.finish();
            }) == "");
      after.push_back(there.snapshot());
    }
    for (auto const& it : after) CHECK((it == after[0]));
    CHECK((after[0] != again.cache.snapshot()));
  };
  same_state(h2o, 1, 1, false), same_state(h2o, 1, 3, false), same_state(h2o, 1, 1, true);
  same_state(presets::ahakv({.recent = 8}), 8, 1, false), same_state(presets::ahakv({.recent = 8}), 8, 5, false);
  same_state(presets::ahakv({.recent = 8}), 8, 11, false), same_state(presets::ahakv({.recent = 8}), 8, 1, true);
  room r;
  attention const all = all_rows(r.in);
  std::vector<std::int32_t> const nothing{0, 0, 0};
  gate_case const gate({.N = {40, 30}, .H = 2});
  kvevict::budget const plenty{.tokens_per_head = 64};
  for (std::int32_t const most : {0, 7})
    for (bool const data : {true, false}) {
      auto const idle = [&](auto& on, auto rows, auto& pointer) {
        rows.row_begin = on.put(nothing), rows.most_rows = most;
        if (!data) pointer(rows) = nullptr;
        return rows;
      };
      auto const data_of = [](auto& rows) -> auto& { return rows.data; };
      auto const weights_of = [](auto& rows) -> auto& { return rows.weights; };
      alike(r.cache, "", [&](auto& on, auto const& view) {
        plan(on.ctx, snapkv, prompt(view, idle(on, on.rows(all.queries()), data_of)), plenty);
        plan(on.ctx, snapkv, prompt(view, idle(on, on.rows(all.rows()), weights_of)), plenty);
        plan(on.ctx, h2o, prompt(view, idle(on, on.rows(all.queries()), data_of)), plenty);
        auto const policy = presets::attention_gate(on.gate(gate.weights()));
        observe(on.ctx, policy, prompt(view, idle(on, on.rows(gate.states({0, 0}, {40, 30}).rows()), data_of)), plenty);
      });
    }
  alike(r.cache, "", [&](auto& on, auto const& view) {
    auto q = on.rows(all.queries());
    q.most_rows = 1000;
    plan(on.ctx, snapkv, prompt(view, q), twenty);
  });
  on_gpu gpu;
  device_cache<std::int32_t> there(r.cache);
  auto without = gpu.rows(last_rows(r.in, 2).queries());
  without.positions = nullptr;
  CHECK(refusal([&] {
          observe(gpu.ctx, h2o, step(there.view, without), twenty), gpu.finish();
        }).find("observe: the rows carry no positions") == 0);
  auto q = gpu.rows(all.queries());
  for (std::int32_t const most : {0, 8, 39}) {
    q.most_rows = most;
    std::string const text = refusal([&] { plan(gpu.ctx, snapkv, prompt(there.view, q), twenty), gpu.finish(); });
    INFO(text);
    CHECK(text.find("sequence 0 provides 40 rows, but most_rows is " + std::to_string(most)) != std::string::npos);
  }
  q.most_rows = -1;
  CHECK(refusal([&] { plan(gpu.ctx, snapkv, prompt(there.view, q), twenty); }).find("most_rows is -1") !=
        std::string::npos);
}
