// SPDX-License-Identifier: Apache-2.0
// What plan, scores and observe refuse: the message says what and what to do, and nothing has been changed.
#include <limits>

#include <kvevict/kvevict.hpp>

#include "support/batch_cache.hpp"
#include "support/catch.hpp"
#include "support/keep_sets.hpp"

namespace policy_bad_input_test {

using namespace support;
using Catch::Contains;
namespace presets = kvevict::presets;

namespace {

constexpr std::int32_t most = std::numeric_limits<std::int32_t>::max();
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();

/// Two sequences in a cache with state, and all their rows.
struct room {
  batch in = random_batch(81, {.Hq = 4, .H = 2, .D = 8, .N = {40, 30}, .future = 2});
  attention all = all_rows(in);
  layouts::cache<std::int32_t> cache;
  kvevict::host ctx;
  kvevict::query_rows q = all.queries();
  kvevict::attention_rows weights = all.rows();

  explicit room(std::int32_t state_floats = 1) : cache(layouts::layout::head_pages, shape(state_floats)) {
    fill(cache, in);
    cache.fill(kvevict::role::state, [](int b, int h, int t, int c) { return b + h + t + c; });
  }
  layouts::cache_shape shape(std::int32_t state_floats) const {
    auto out = cache_shape_of(in);
    out.state_floats = state_floats;
    return out;
  }
  auto const& view() const { return cache.view; }
  kvevict::layer_view<std::int32_t> without(kvevict::role what) const {
    auto out = cache.view;
    out.component_count = 0;
    for (auto const& c : cache.view)
      if (c.what != what) out = out.with(c);
    return out;
  }
  auto lse(kvevict::log_base base = kvevict::log_base::e) const {
    return kvevict::prompt(view(), q).with_lse(all.lse.data(), all.lse_stride(), 1, base);
  }

  /// plan, scores: refused with both parts in the message; outputs and cache as they were.
  template <class Policy, class Evidence>
  void refuses(Policy const& p, Evidence const& e, kvevict::budget const& b, std::string const& what,
               std::string const& remedy) {
    auto const bytes = cache.snapshot();
    auto const proven = view().with_order(kvevict::row_order::ascending, kvevict::order_proof::by_engine);
    kvevict::keep_set out =
        kvevict::plan(ctx, presets::streaming_llm(), kvevict::contents(proven), {.tokens_per_head = 9});
    auto const tokens = out.tokens;
    auto const begin = out.row_begin;
    std::string const message = message_of(p, e, b, out);
    CHECK_THAT(message, Contains(what) && Contains(remedy) && Contains("; "));
    CHECK(out.tokens == tokens);
    CHECK(out.row_begin == begin);
    CHECK(cache.snapshot() == bytes);
    if (what.find("floor_permille") != std::string::npos) return;  // the heads stage: scores() does not get there
    std::vector<float> values{1, 2, 3};
    CHECK_THROWS_AS(kvevict::scores(ctx, p, e, b, values), kvevict::contract_violation);
    CHECK(values == std::vector<float>{1, 2, 3});
    CHECK(cache.snapshot() == bytes);
  }
  template <class Policy, class Evidence>
  std::string message_of(Policy const& p, Evidence const& e, kvevict::budget const& b, kvevict::keep_set& out) {
    try {
      kvevict::plan(ctx, p, e, b, out);
    } catch (kvevict::contract_violation const& error) {
      return error.what();
    }
    return "nothing was thrown";
  }

  /// observe: refused, and the state is as it was.
  template <class Policy, class Evidence>
  void ignores(Policy const& p, Evidence const& e, std::string const& what, std::string const& remedy,
               kvevict::budget b = {.tokens_per_head = 20}) {
    auto const bytes = cache.snapshot();
    CHECK_THROWS_WITH(kvevict::observe(ctx, p, e, b), Contains(what) && Contains(remedy));
    CHECK(cache.snapshot() == bytes);
  }
};

constexpr kvevict::budget twenty{.tokens_per_head = 20};
constexpr auto snapkv = presets::snapkv({.window = 8, .pool = 3});
constexpr auto ahakv = presets::ahakv({.recent = 8});
constexpr auto h2o = presets::h2o();

/// A score of the user's own with one bad value.
struct one_bad {
  float value;
  template <class Context, class Evidence> void operator()(Context&, Evidence const&, kvevict::score_rows& out) const {
    for (std::int64_t i = 0; i < out.begin[out.count()]; ++i) out.values[i] = 0.5f;
    out.scores(1)[7] = value;
  }
};

}  // namespace

TEST_CASE("bad input: budget below the protected tokens") {
  room r;
  r.refuses(snapkv, kvevict::prompt(r.view(), r.q), {.tokens_per_head = 7}, "below the 8 protected tokens",
            "raise tokens_per_head");
  r.refuses(presets::streaming_llm({.sinks = 4}), kvevict::contents(r.view()), {.tokens_per_head = 3},
            "below the 5 protected tokens", "protect fewer");
  std::vector<std::int32_t> const read_only{16, 0};
  r.refuses(presets::random({.recent = 8}), kvevict::contents(r.view().with_read_only(read_only.data())),
            {.tokens_per_head = 23}, "(16 at the front, 8 recent)", "raise");
}
TEST_CASE("bad input: a budget of 0 tokens, but for policies that do not look at it") {
  room r;
  auto const e = kvevict::prompt(r.view(), r.q);
  r.refuses(h2o, e, {}, "tokens_per_head is 0", "give what a head shall keep");
  r.refuses(presets::pyramidkv({.window = 8}), e, {.layer_count = 3}, "tokens_per_head is 0", "budget::no_cap");
  std::vector<std::int32_t> const each{20, 0};
  r.refuses(h2o, e, {.per_sequence = each.data()}, "the budget of sequence 1 is 0 tokens", "budget::no_cap");
  r.refuses(presets::pyramidkv({.window = 8}), e, {.layer_count = 3, .per_sequence = each.data()},
            "the budget of sequence 1 is 0 tokens", "give what a head shall keep");
  r.ignores(h2o, kvevict::step(r.view(), r.q), "tokens_per_head is 0", "give what a head shall keep", {});
  std::vector<std::int32_t> const other{0, 20};
  r.ignores(h2o, kvevict::step(r.view(), r.q), "the budget of sequence 0 is 0 tokens", "give what a head shall keep",
            {.per_sequence = other.data()});
  CHECK(kvevict::plan(r.ctx, presets::full(), kvevict::contents(r.view()), {}).is_identity());
}
TEST_CASE("bad input: lengths of other layers that cannot be") {
  room r;
  auto const p = presets::pyramidkv({.window = 8});
  auto const e = kvevict::prompt(r.view(), r.q);
  std::vector<std::int32_t> N{40, 30, 40, 30, 50, 30};  // (L, B)
  kvevict::budget const ask{.tokens_per_head = 20, .layer = 1, .layer_count = 3, .lengths = {N.data(), 1, 2, 0}};
  CHECK_NOTHROW(kvevict::plan(r.ctx, p, e, ask));
  N[4] = -1;
  r.refuses(p, e, ask, "layer 2 of sequence 0, head 0 has -1 tokens", "give counts");
  N[4] = 40, N[3] = 29;
  r.refuses(p, e, ask, "layer 1 of sequence 1, head 0 has 29 tokens, but the view has 30",
            "before the first of them was planned");
}
TEST_CASE("bad input: budget negative") {
  room r;
  r.refuses(h2o, kvevict::prompt(r.view(), r.q), {.tokens_per_head = -1}, "budget of -1", "give a count");
  std::vector<std::int32_t> const each{20, -5};
  r.refuses(h2o, kvevict::prompt(r.view(), r.q), {.tokens_per_head = 20, .per_sequence = each.data()},
            "budget of -5 tokens for sequence 1", "give a count");
}
TEST_CASE("bad input: layer out of range") {
  room r;
  for (kvevict::budget const& b : {kvevict::budget{20, 3, 3}, kvevict::budget{20, -1, 3}, kvevict::budget{20, 0, 0}})
    r.refuses(presets::pyramidkv({.window = 8}), kvevict::prompt(r.view(), r.q), b, "layer ",
              "budget.layer in [0, budget.layer_count)");
}
TEST_CASE("bad input: query heads not a multiple of the KV heads") {
  room r;
  r.q.heads = 3, r.weights.heads = 3;
  r.refuses(snapkv, kvevict::prompt(r.view(), r.q), twenty, "3 query heads are not a multiple of 2 KV heads",
            "Hq = G·H");
  r.refuses(h2o, kvevict::prompt(r.view(), r.weights), twenty, "3 query heads", "Hq = G·H");
  r.ignores(h2o, kvevict::step(r.view(), r.q), "3 query heads", "Hq = G·H");
}
TEST_CASE("bad input: head_dim of queries and keys differ") {
  room r;
  r.q.head_dim = 4;
  r.refuses(snapkv, kvevict::prompt(r.view(), r.q), twenty, "4 elements a head and keys 8", "both must be D");
}
TEST_CASE("bad input: queries or keys of a type that is not floating") {
  room r;
  for (auto const type : {kvevict::dtype::i32, kvevict::dtype::opaque}) {
    auto k = *r.view().find(kvevict::role::k);
    k.type = type, k.rows.run_bytes = 8 * kvevict::size_of(type);
    auto const view = r.without(kvevict::role::k).with(k);
    std::string const what = std::string("keys of type ") + kvevict::name_of(type);
    r.refuses(snapkv, kvevict::prompt(view, r.q), twenty, what, "f32, f16 and bf16");
    r.refuses(h2o, kvevict::prompt(view, r.q), twenty, what, "f32, f16 and bf16");
    r.ignores(h2o, kvevict::step(view, last_rows(r.in, 1).queries()), what, "f32, f16 and bf16");
    CHECK_NOTHROW(kvevict::plan(r.ctx, snapkv, kvevict::prompt(view, r.weights), twenty));  // softmax rows need no keys
  }
  r.q.type = kvevict::dtype::i32;
  r.refuses(snapkv, kvevict::prompt(r.view(), r.q), twenty, "queries of type i32", "f32, f16 and bf16");
}
TEST_CASE("bad input: queries and softmax rows that begin between two elements") {
  room r;
  auto const behind = [](auto const* p, std::ptrdiff_t bytes) {
    return reinterpret_cast<decltype(p)>(reinterpret_cast<std::uintptr_t>(p) + static_cast<std::uintptr_t>(bytes));
  };
  auto q = r.q;
  q.data = behind(static_cast<float const*>(q.data), 2);
  r.refuses(snapkv, kvevict::prompt(r.view(), q), twenty, "queries begin at an address", "of an element");
  auto a = r.weights;
  a.weights = behind(a.weights, 1);
  r.refuses(snapkv, kvevict::prompt(r.view(), a), twenty, "softmax rows begin at an address", "of an element");
}
TEST_CASE("bad input: no rows, no offsets, offsets that descend") {
  room r;
  auto q = r.q;
  q.data = nullptr;
  r.refuses(snapkv, kvevict::prompt(r.view(), q), twenty, "rows without data or row_begin", "(B+1) offsets");
  q = r.q, q.row_begin = nullptr;
  r.refuses(snapkv, kvevict::prompt(r.view(), q), twenty, "rows without data or row_begin", "(B+1) offsets");
  std::vector<std::int32_t> const begin{0, 70, 40};
  q = r.q, q.row_begin = begin.data();
  r.refuses(snapkv, kvevict::prompt(r.view(), q), twenty, "descends at sequence 1", "ascending offsets");
}
TEST_CASE("bad input: offsets below 0") {
  room r;
  std::int32_t const begin[] = {-40, 0, 30};
  r.q.row_begin = r.weights.row_begin = begin;
  r.refuses(snapkv, kvevict::prompt(r.view(), r.q), twenty, "row_begin starts at -40",
            "ascending offsets, none negative");
  r.refuses(snapkv, kvevict::prompt(r.view(), r.weights), twenty, "row_begin starts at -40",
            "ascending offsets, none negative");
}
TEST_CASE("bad input: strides that do not step over a row") {
  room r;
  for (std::int64_t const bad : {-32, 0, 1}) {
    auto const both = [&](std::int64_t kvevict::query_rows::*stride,
                          std::int64_t kvevict::attention_rows::*of_weights) {
      auto q = r.q;
      auto w = r.weights;
      q.*stride = w.*of_weights = bad;
      r.refuses(snapkv, kvevict::prompt(r.view(), q), twenty, "queries of 8 elements are", "strides in elements");
      r.refuses(h2o, kvevict::prompt(r.view(), w), twenty, "softmax rows of 40 elements are", "strides in elements");
      r.ignores(h2o, kvevict::step(r.view(), q), "queries of 8 elements are", "strides in elements");
    };
    both(&kvevict::query_rows::token_stride, &kvevict::attention_rows::token_stride);
    both(&kvevict::query_rows::head_stride, &kvevict::attention_rows::head_stride);
    if (bad == 1) continue;
    r.refuses(snapkv, kvevict::prompt(r.view(), r.q).with_lse(r.all.lse.data(), bad, 1), twenty,
              "LSEs of 1 elements are", "strides in elements");
    r.refuses(snapkv, kvevict::prompt(r.view(), r.q).with_lse(r.all.lse.data(), 4, bad), twenty,
              "LSEs of 1 elements are", "strides in elements");
  }
}
TEST_CASE("bad input: a stride over nothing may be anything") {
  batch const in = random_batch(82, {.Hq = 1, .H = 1, .D = 8, .N = {40}});
  attention const last = last_rows(in, 1), all = all_rows(in);
  with_cache(in, [&](auto& cache) {
    kvevict::host ctx;
    auto q = last.queries();
    auto w = last.rows();
    q.token_stride = q.head_stride = w.token_stride = w.head_stride = 0;
    CHECK_NOTHROW(kvevict::plan(ctx, presets::snapkv({.window = 1}),
                                kvevict::prompt(cache.view, q).with_lse(last.lse.data(), 0, 0), twenty));
    CHECK_NOTHROW(kvevict::plan(ctx, presets::snapkv({.window = 1}), kvevict::prompt(cache.view, w), twenty));
    q = all.queries(), q.head_stride = 0;
    CHECK_NOTHROW(kvevict::plan(ctx, snapkv, kvevict::prompt(cache.view, q), twenty));
  });
}
TEST_CASE("bad input: LSE of the wrong base") {
  room r;
  r.refuses(snapkv, r.lse(kvevict::log_base::two), twenty, "add up to", "log_base");
  r.refuses(h2o, r.lse(kvevict::log_base::two), twenty, "add up to", "log_base");
  attention const two = last_rows(r.in, 2);
  r.ignores(
      h2o, kvevict::step(r.view(), two.queries()).with_lse(two.lse.data(), two.lse_stride(), 1, kvevict::log_base::two),
      "add up to", "log_base");
}
TEST_CASE("bad input: another scale than the LSE's") {
  room r;
  r.refuses(snapkv, r.lse().with_scale(1.0f), twenty, "add up to", "the scale, the softcap or the log_base");
  r.refuses(h2o, r.lse().with_scale(1.0f), twenty, "add up to", "the scale, the softcap or the log_base");
}
TEST_CASE("bad input: scale or softcap negative, not finite, or beyond what an engine's can be") {
  room r;
  for (float const x : {1e-7f, 1e-40f})
    r.refuses(snapkv, kvevict::prompt(r.view(), r.q).with_softcap(x), twenty, "scale and softcap", "0 means");
  for (float const x : {-1.0f, not_a_number, inf, 1e9f, 1e38f}) {
    r.refuses(snapkv, kvevict::prompt(r.view(), r.q).with_scale(x), twenty, "scale and softcap", "0 means");
    r.refuses(snapkv, kvevict::prompt(r.view(), r.q).with_softcap(x), twenty, "scale and softcap", "0 means");
  }
}
TEST_CASE("bad input: softmax weights above 1") {
  room r;
  for (float& x : r.all.weights) x *= 8;
  r.refuses(snapkv, kvevict::prompt(r.view(), r.weights), twenty, "a softmax weight is above 1", "normalised");
  r.refuses(h2o, kvevict::prompt(r.view(), r.weights), twenty, "a softmax weight is above 1", "normalised");
  r.ignores(h2o, kvevict::step(r.view(), r.weights), "", "", {.tokens_per_head = 20});
}
TEST_CASE("bad input: softmax weights below 0, which are logits") {
  room r;
  r.all.weights[r.all.weights.size() - 11] = -0.01f;  // the last row of head 3 of sequence 1, at token 29
  r.refuses(snapkv, kvevict::prompt(r.view(), r.weights), twenty, "a softmax weight is above 1 or below 0",
            "not logits");
  r.refuses(h2o, kvevict::prompt(r.view(), r.weights), twenty, "a softmax weight is above 1 or below 0", "not logits");
}
TEST_CASE("bad input: an empty batch needs no rows") {
  room r;
  kvevict::layer_view<std::int32_t> none = r.view();
  none.pages.sequences = 0;
  auto const all = [&](auto const& policy, auto const& rows) {
    CHECK(kvevict::plan(r.ctx, policy, kvevict::prompt(none, rows), twenty).rows() == 0);
    if constexpr (requires { policy.score.state_floats(); })
      CHECK_NOTHROW(kvevict::observe(r.ctx, policy, kvevict::prompt(none, rows), twenty));
  };
  all(snapkv, kvevict::query_rows{}), all(snapkv, kvevict::attention_rows{});
  all(h2o, kvevict::query_rows{}), all(h2o, kvevict::attention_rows{});
}
TEST_CASE("bad input: NaN in a key, a query, a value, an LSE or a softmax row") {
  for (int const where : {0, 1, 2, 3, 4}) {
    CAPTURE(where);
    room r;
    if (where == 0) r.cache.set(*r.view().find(kvevict::role::k), 0, 1, 5, 3, not_a_number);
    if (where == 1) r.all.q[r.all.q.size() / 2 - 40] = not_a_number;
    if (where == 2) r.cache.set(*r.view().find(kvevict::role::v), 0, 1, 5, 3, not_a_number);
    if (where == 3) std::fill(r.all.lse.begin(), r.all.lse.end(), not_a_number);
    if (where == 4) std::fill(r.all.weights.begin(), r.all.weights.end(), not_a_number);
    if (where < 2)
      r.refuses(snapkv, kvevict::prompt(r.view(), r.q), twenty, "is NaN", "look for values that are not finite");
    if (where < 2)
      r.refuses(h2o, kvevict::prompt(r.view(), r.q), twenty, "is NaN", "look for values that are not finite");
    if (where < 3)
      r.refuses(ahakv, kvevict::prompt(r.view(), r.q), twenty, "is NaN", "look for values that are not finite");
    if (where == 3) r.refuses(snapkv, r.lse(), twenty, "is NaN", "look for values that are not finite");
    if (where == 4)
      r.refuses(snapkv, kvevict::prompt(r.view(), r.weights), twenty, "is NaN", "look for values that are not finite");
  }
}
TEST_CASE("bad input: infinite keys, queries and values") {
  for (int const where : {0, 1, 2})
    for (float const x : {inf, -inf}) {
      CAPTURE(where, x);
      room r;
      if (where == 1)
        std::fill(r.all.q.begin(), r.all.q.end(), x);
      else
        r.cache.set(*r.view().find(where == 0 ? kvevict::role::k : kvevict::role::v), 0, 1, 5, 3, x);
      auto const e = kvevict::prompt(r.view(), r.q);
      if (where < 2) r.refuses(h2o, e, twenty, "is NaN", "look for values that are not finite");
      r.refuses(ahakv, e, twenty, "is NaN", "look for values that are not finite");
    }
}
TEST_CASE("bad input: keys that are all infinite, so that every logit is -inf") {
  room r;
  for (float& x : r.all.q) x = std::abs(x) + 0.1f;
  for (std::int32_t t = 0; t < r.view().length(0, 1); ++t)
    r.cache.set(*r.view().find(kvevict::role::k), 0, 1, t, 3, -inf);
  auto const e = kvevict::prompt(r.view(), r.q);
  auto const refuses = [&](auto const& p) {
    r.refuses(p, e, twenty, "of sequence 0, head 1 in layer 0 is NaN", "look for values that are not finite");
  };
  refuses(snapkv), refuses(h2o), refuses(ahakv), refuses(presets::tova()), refuses(presets::defensivekv({.window = 8}));
  refuses(presets::dropkv({.window = 8})), refuses(presets::cake({.window = 8}));
}
TEST_CASE("bad input: NaN, +inf and -inf from a score of one's own") {
  room r;
  r.refuses(kvevict::policy{one_bad{not_a_number}}, kvevict::contents(r.view()), twenty,
            "token 7 of sequence 0, head 1 in layer 0 is NaN", "to keep a token, protect it");
  r.refuses(kvevict::policy{one_bad{inf}}, kvevict::contents(r.view()), twenty, "is +inf",
            "to keep a token, protect it");
  r.refuses(kvevict::policy{one_bad{-inf}}, kvevict::contents(r.view()), twenty, "is -inf",
            "to keep a token, protect it");
}
TEST_CASE("bad input: too few rows") {
  room r;
  attention const five = last_rows(r.in, 5);
  r.refuses(snapkv, kvevict::prompt(r.view(), five.queries()), twenty, "5 query rows and the window needs 8",
            "provide the queries of its newest tokens");
  r.refuses(h2o, kvevict::prompt(r.view(), five.queries()), twenty, "5 query rows for 40 tokens",
            "a row of every token");
  r.refuses(snapkv, kvevict::prompt(r.view(), five.rows()), twenty, "5 softmax rows and the score reads 8",
            "provide the rows of its newest tokens");
  r.refuses(h2o, kvevict::prompt(r.view(), five.rows()), twenty, "5 softmax rows for 40", "a row of every token");
  attention const behind = rows_of(r.in, whole_cache(r.in), {5, 0}, r.in.N);  // five slots of padding
  std::vector<std::int32_t> const first{5, 0};
  kvevict::query_rows padded = behind.queries();
  padded.sees.first_token = first.data(), padded.positions = nullptr;
  r.refuses(h2o, kvevict::prompt(r.view(), padded), twenty, "35 query rows for 40 tokens",
            "and no other; behind padding, in a shard or after an eviction, where there are more or fewer, observe the "
            "rows and plan from remembered(cache)");
  attention const none = future_rows(batch{4, 2, 8, 0, r.in.N, r.in.layers, 0});
  r.refuses(presets::oracle({.rows = 4}), kvevict::future(r.view(), none.queries()).with_lse(r.all.lse.data(), 4, 1),
            twenty, "rows", "provide");
}
TEST_CASE("bad input: padding that does not end within the rows") {
  room r;
  auto const refused = [&](kvevict::layer_view<std::int32_t> const& view, std::vector<std::int32_t> const& first,
                           char const* what) {
    kvevict::visibility const sees{.first_token = first.data()};
    auto const streaming = presets::streaming_llm({.sinks = 0});
    char const* const remedy = "from 0 to the row's length";
    r.refuses(streaming, kvevict::contents(view).with_visibility(sees), twenty, what, remedy);
    r.refuses(h2o, kvevict::remembered(view).with_visibility(sees), twenty, what, remedy);
    r.refuses(snapkv, kvevict::prompt(view, r.q).with_visibility(sees), twenty, what, remedy);
    r.refuses(snapkv, kvevict::prompt(view, r.weights).with_visibility(sees), twenty, what, remedy);
    CHECK_THROWS_WITH(kvevict::observe(r.ctx, h2o, kvevict::step(view, r.q).with_visibility(sees), twenty),
                      Contains(what));
  };
  refused(r.view(), {0, 31}, "first_token of sequence 1 is 31, and sequence 1, head 0 holds 30 tokens");
  refused(r.view(), {-1, 0}, "first_token of sequence 0 is -1, and sequence 0, head 0 holds 40 tokens");
  refused(r.view().with_order(kvevict::row_order::scattered), {0, 2}, "sequence 1, head 0 holds 30 scattered tokens");

  r.cache.lengths()[2] = r.cache.lengths()[3] = 0;  // who holds nothing has no padding either, whatever is said
  std::vector<std::int32_t> const first{3, 31};
  auto const idle = kvevict::contents(r.view()).with_visibility({.first_token = first.data()});
  CHECK(kvevict::plan(r.ctx, presets::streaming_llm({.sinks = 0}), idle, twenty).tokens.front() == 20);
}
TEST_CASE("bad input: a window, recent rows or sinks that are not counts") {
  room r;
  auto const e = kvevict::prompt(r.view(), r.q);
  r.refuses(presets::snapkv({.window = 0}), e, twenty, "the window has 0 rows", "at least one row");
  r.refuses(presets::snapkv({.window = -3}), e, twenty, "negative count", "sinks, recent ≥ 0");
  r.refuses(presets::random({.sinks = -1}), e, twenty, "negative count", "sinks, recent ≥ 0");
  r.refuses(presets::random().with(kvevict::protect{0, 0, 1001}), e, twenty, "above 1000 permille", "give");
}
TEST_CASE("bad input: pool widths that are even, below 1 or without end") {
  room r;
  auto const e = kvevict::prompt(r.view(), r.q);
  for (std::int32_t const width : {4, 0, -1, 65537, 999999999, most}) {
    r.refuses(presets::snapkv({.window = 8, .pool = width}), e, twenty, "pool: the width is " + std::to_string(width),
              "odd width");
    r.refuses(presets::ahakv({.recent = 8, .value_pool = width}), e, twenty,
              "pool: the width is " + std::to_string(width), "odd width");
  }
}
TEST_CASE("bad input: stages out of their range") {
  room r(8);
  auto const e = kvevict::prompt(r.view(), r.q);
  for (std::int32_t const floor : {-1, 1001}) {
    r.refuses(snapkv.with(kvevict::heads::adaptive{floor}), e, twenty,
              "adaptive: floor_permille is " + std::to_string(floor), "0 to 1000");
    r.refuses(snapkv.with(kvevict::heads::forced_floor{floor}), e, twenty,
              "forced_floor: floor_permille is " + std::to_string(floor), "0 to 1000");
  }
  for (std::int32_t const beta : {0, 65537, 1 << 30, most})
    r.refuses(presets::pyramidkv({.window = 8, .beta = beta}), e, {20, 0, 4}, "beta is " + std::to_string(beta), "20");
  for (float const x : {-1.0f, 1e30f, std::numeric_limits<float>::infinity(), std::nanf("")}) {
    r.refuses(presets::cake({.window = 8, .gamma = x}), e, twenty, "varying_attention: gamma is ", "give 0 or more");
    auto const policy = presets::ahakv({.recent = 8, .min_gain = x});
    r.refuses(policy, e, twenty, "recent_attention: a least gain of ", "give 0 or more");
    attention const one = last_rows(r.in, 1);
    CHECK_THROWS_WITH(kvevict::observe(r.ctx, policy, kvevict::step(r.view(), one.queries()), twenty),
                      Catch::Contains("recent_attention: a least gain of "));
  }
  for (std::int32_t const share : {-1, 1001, most, std::numeric_limits<std::int32_t>::min()}) {
    CHECK_THROWS_WITH(presets::criticalkv({.first_permille = share}), Catch::Contains("shares: they add up to"));
    CHECK_THROWS_WITH(presets::distinct_and_attended({.distinct_permille = share}),
                      Catch::Contains("shares: they add up to"));
  }
}
TEST_CASE("bad input: counts that are near the end of an int") {
  room r(8);
  auto const e = kvevict::prompt(r.view(), r.q);
  r.refuses(presets::snapkv({.window = most, .sinks = 4}), e, twenty,
            "below the 40 protected tokens of sequence 0 (4 at the front, 2147483647 recent)", "protect fewer");
  r.refuses(presets::streaming_llm().with(kvevict::protect{most, most}), kvevict::contents(r.view()), twenty,
            "below the 40 protected tokens", "protect fewer");
  r.refuses(presets::pyramidkv({.window = 8}), e, {20, 1, most}, "a stack of 2147483647 layers", "at most 65536");
  r.refuses(snapkv, e, {20, 0, std::numeric_limits<std::int32_t>::min()}, "layer 0 of -2147483648", "budget.layer");
  attention const one = last_rows(r.in, 1);
  CHECK_NOTHROW(kvevict::observe(r.ctx, ahakv.with(kvevict::layers::pyramid{65536}).with(kvevict::protect{most, most}),
                                 kvevict::step(r.view(), one.queries()), {20, 1, 65536}));
}
TEST_CASE("bad input: a cache without K, without V") {
  room r;
  r.refuses(snapkv, kvevict::prompt(r.without(kvevict::role::k), r.q), twenty, "no component has role::k",
            "add the keys");
  r.refuses(ahakv, kvevict::prompt(r.without(kvevict::role::v), r.q), twenty, "no V component", "add it");
}
TEST_CASE("bad input: softmax rows shorter than the cache") {
  room r;
  r.weights.slots = 39;
  r.refuses(h2o, kvevict::prompt(r.view(), r.weights), twenty, "39 floats and sequence 0, head 0 40 tokens",
            "attention_rows::slots");
}
TEST_CASE("bad input: scattered rows") {
  room r;
  auto const scattered = r.view().with_order(kvevict::row_order::scattered);
  r.refuses(snapkv, kvevict::prompt(scattered, r.q), twenty, "the rows are scattered", "use stable compaction");
  r.refuses(h2o, kvevict::prompt(scattered, r.q), twenty, "the rows are scattered", "compact stably");
  r.refuses(ahakv, kvevict::prompt(scattered, r.q), twenty, "the rows are scattered", "compact them stably");
  kvevict::policy const means{kvevict::score::accumulated_attention{kvevict::score::column_norm::rows_that_see}};
  r.refuses(means, kvevict::remembered(scattered), twenty, "the rows are scattered", "column_norm::none");
}
TEST_CASE("bad input: scattered rows without positions") {
  room r;
  auto const scattered = r.without(kvevict::role::position).with_order(kvevict::row_order::scattered);
  r.refuses(h2o, kvevict::remembered(scattered), twenty, "no position component", "compaction::stable");
  r.refuses(presets::streaming_llm(), kvevict::contents(scattered), twenty, "no position component", "role::position");
}
TEST_CASE("bad input: scattered rows whose positions are not distinct") {
  for (int const where : {0, 1, 2}) {
    CAPTURE(where);
    room r;
    auto const scattered = r.view().with_order(kvevict::row_order::scattered);
    auto const& positions = *r.view().find(kvevict::role::position);
    auto const at = [&](int b, int h, int t) -> std::int32_t& {
      return kvevict::element<std::int32_t>(r.view(), positions, b, h, t);
    };
    if (where == 0) r.cache.fill(kvevict::role::position, [](int, int, int, int) { return 0; });
    if (where == 1) at(1, 1, 29) = 28;                                       // appended without its position
    if (where == 2) at(1, 1, 7) = std::numeric_limits<std::int32_t>::max();  // nothing lies behind it
    std::string const what = where == 0 ? "the positions of sequence 0, head 0 are not distinct"
                                        : "the positions of sequence 1, head 1 are not distinct";
    auto const policy = presets::random({.sinks = 4, .recent = where == 2 ? 0 : 1});
    r.refuses(policy, kvevict::contents(scattered), twenty, "plan: " + what, "role::position");
    r.refuses(policy.with(kvevict::heads::adaptive{}), kvevict::contents(scattered), twenty, "plan: " + what,
              "role::position");
    if (where != 2)
      r.ignores(h2o, kvevict::step(scattered, last_rows(r.in, 1).queries()), "observe: " + what, "role::position");
  }
}
TEST_CASE("bad input: no state, or state of another width or type") {
  room r;
  auto const none = r.without(kvevict::role::state);
  r.refuses(h2o, kvevict::remembered(none), twenty, "role::state", "cache.with(");
  r.ignores(h2o, kvevict::step(none, r.q), "role::state component of 1 f32", "cache.with(component)");
  r.ignores(ahakv, kvevict::step(r.view(), r.q), "role::state component of 8 f32", "cache.with(component)");
  r.refuses(ahakv, kvevict::remembered(r.view()), twenty, "role::state component of 8 f32", "cache.with(component)");
  auto other = none;
  auto c = *r.view().find(kvevict::role::state);
  c.type = kvevict::dtype::i32;
  r.refuses(h2o, kvevict::remembered(other.with(c)), twenty, "role::state component of 1 f32", "cache.with(component)");
}

TEST_CASE("bad input: observing with a budget or stages that plan refuses") {
  room r;
  attention const one = last_rows(r.in, 1);
  auto const e = kvevict::step(r.view(), one.queries());
  std::int32_t const each[] = {20, -5};
  r.ignores(h2o, e, "observe: a budget of -1 tokens for sequence 0", "give a count", {.tokens_per_head = -1});
  r.ignores(h2o, e, "observe: a budget of -5 tokens for sequence 1", "give a count",
            {.tokens_per_head = 20, .per_sequence = each});
  r.ignores(h2o.with(kvevict::layers::pyramid{0}), e, "beta is 0", "20", {20, 0, 4});
  r.ignores(h2o, e, "observe: layer 3 of 3", "budget.layer", {20, 3, 3});
  r.ignores(h2o.with(kvevict::protect{-1}), e, "observe: protect has a negative count", "give");
  auto const nowhere = r.without(kvevict::role::position).with_order(kvevict::row_order::scattered);
  r.ignores(h2o, kvevict::step(nowhere, one.queries()), "observe: the rows are scattered and the cache has no position",
            "role::position");
}
TEST_CASE("bad input: observing without positions") {
  room r;
  attention const two = last_rows(r.in, 2);
  auto q = two.queries();
  q.positions = nullptr;
  r.ignores(h2o, kvevict::step(r.view(), q), "carry no positions", "logical position");
}
TEST_CASE("bad input: observing at a position below 0, which has no column in the ring") {
  room r(8);
  for (std::size_t const rows : {1, 3})
    for (std::int32_t const position : {-1, -9, std::numeric_limits<std::int32_t>::min()}) {
      attention some = last_rows(r.in, rows);
      some.positions[rows] = position;  // the oldest of sequence 1
      std::string const what = "a position of sequence 1 is " + std::to_string(position);
      r.ignores(ahakv, kvevict::step(r.view(), some.queries()), what, "logical position");
      r.ignores(ahakv, kvevict::step(r.view(), some.rows()), what, "logical position");
    }
}
TEST_CASE("bad input: observing rows of tokens that are not in the cache") {
  room r;
  for (auto& n : r.cache.lengths()) n = 2;
  r.ignores(h2o, kvevict::step(r.view(), last_rows(r.in, 3).queries()), "3 rows for 2 tokens", "append the new tokens");
}
TEST_CASE("bad input: observing NaN leaves the state as it was") {
  room aha(8), r;
  for (attention rows : {last_rows(r.in, 3), last_rows(r.in, 1)}) {
    rows.q.back() = not_a_number;
    r.ignores(h2o, kvevict::step(r.view(), rows.queries()), "observe: the score of token",
              "look for values that are not finite");
    aha.ignores(ahakv, kvevict::step(aha.view(), rows.queries()), "observe: the score of token",
                "look for values that are not finite");
    r.ignores(
        h2o,
        kvevict::step(r.view(), rows.queries()).with_lse(rows.lse.data(), rows.lse_stride(), 1, kvevict::log_base::two),
        "", "");
  }
}

namespace {

struct own_score {
  template <class Context, class Evidence>
  void operator()(Context& ctx, Evidence const&, kvevict::score_rows& out) const {
    kvevict::kernels::each_token(ctx, out, kvevict::score::none::zero{});
  }
};

}  // namespace

TEST_CASE(
    "workspace_bytes: shapes that no cache has are refused, and a score of one's own counts as 0 inside value_prior") {
  kvevict::host const ctx;
  auto const says = [&](kvevict::cache_shape const& s) {
    return support::refusal([&] { kvevict::workspace_bytes(ctx, presets::ada_snapkv(), s); });
  };
  kvevict::cache_shape const good{2, 8, 4, 64, 1000, 200, 300};
  CHECK(says(good).empty());
  CHECK(says({1000, 64, 8, 256, std::int64_t{1} << 20, 1 << 26, 1 << 26}).empty());
  auto const wrong = [&](auto change, char const* words) {
    auto s = good;
    change(s);
    CHECK_THAT(says(s), Catch::StartsWith("workspace_bytes: ") && Contains(words) && Contains("; "));
  };
  wrong([](auto& s) { s.kv_heads = 0; }, "8 query heads on 0 KV heads");
  wrong([](auto& s) { s.q_heads = 0; }, "0 query heads on 4 KV heads");
  wrong([](auto& s) { s.q_heads = 3, s.kv_heads = 2; }, "3 query heads on 2 KV heads");
  wrong([](auto& s) { s.q_heads = s.kv_heads = -4; }, "-4 query heads");
  wrong([](auto& s) { s.head_dim = 0; }, "of 0 elements");
  wrong([](auto& s) { s.sequences = -1; }, "-1 sequences");
  wrong([](auto& s) { s.tokens = -1; }, "-1 tokens");
  wrong([](auto& s) { s.table_pages = -1; }, "none may be negative");
  wrong([](auto& s) { s.pool_pages = -1; }, "none may be negative");
  wrong([](auto& s) { s.tokens = std::int64_t{1} << 62; }, "no machine holds");
  wrong(
      [](auto& s) { s.sequences = s.q_heads = s.kv_heads = std::numeric_limits<std::int32_t>::max(), s.tokens = 100; },
      "no machine holds");
  wrong([](auto& s) { s.table_pages = std::numeric_limits<std::int64_t>::max(); }, "no machine holds");
  wrong([](auto& s) { s.pool_pages = std::numeric_limits<std::int64_t>::max(); }, "no machine holds");
  auto const own = kvevict::policy{kvevict::score::value_prior{own_score{}}};
  kvevict::cache_shape const large{2, 8, 4, 64, 100'000};
  CHECK(kvevict::workspace_bytes(ctx, own, large) > kvevict::workspace_bytes(ctx, kvevict::policy{own_score{}}, large));
}

}  // namespace policy_bad_input_test
