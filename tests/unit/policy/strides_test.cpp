// SPDX-License-Identifier: Apache-2.0
// Strides of evidence that would lead to another row, before the array or beyond 64 bits: refused, also where one row
// is handed in that lies behind others.
#include <limits>

#include <kvevict/kvevict.hpp>

#include "support/batch_cache.hpp"
#include "support/catch.hpp"
#include "support/gate_case.hpp"
#include "support/keep_sets.hpp"

namespace policy_strides_test {

using namespace support;
using Catch::Contains;
namespace presets = kvevict::presets;

namespace {

constexpr std::int64_t smallest = std::numeric_limits<std::int64_t>::min(),
                       largest = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t wrong[] = {0, 1, -1, -32, smallest, largest, std::int64_t{1} << 61};
constexpr kvevict::budget twenty{.tokens_per_head = 20};
constexpr auto one_row = presets::snapkv({.window = 1, .pool = 1});
constexpr auto h2o = presets::h2o();

/// One sequence of 40 tokens, and of its rows the last one alone, behind `before` rows that no sequence owns.
struct room {
  batch in = random_batch(83, {.Hq = 4, .H = 2, .D = 8, .N = {40}, .future = 3});
  attention rows, later = future_rows(in);
  std::int32_t begin[2];
  kvevict::host ctx;

  explicit room(std::int32_t before)
      : rows(last_rows(in, static_cast<std::size_t>(before) + 1)), begin{before, before + 1} {}
  template <class Rows> Rows last(Rows r) const {
    r.row_begin = begin;
    return r;
  }
  kvevict::query_rows queries() const { return last(rows.queries()); }
  kvevict::attention_rows weights() const { return last(rows.rows()); }

  /// call(cache) is refused with the words of `what`, or accepted when there are none.
  template <class Call> void wants(std::string const& what, Call call) {
    auto shape = cache_shape_of(in);
    shape.state_floats = 1;
    with_cache(layouts::layout::nhd, shape, in, [&](auto& cache) {
      auto const bytes = cache.snapshot();
      std::string const message = refusal([&] { call(cache.view); });
      if (what.empty()) {
        CHECK(message == "");
        return;
      }
      CHECK_THAT(message, Contains(what) && Contains("; ") && Contains("strides"));
      CHECK(cache.snapshot() == bytes);
    });
  }
};

}  // namespace

TEST_CASE("strides: of one row that lies behind others, all kinds of evidence") {
  for (std::int64_t const stride : wrong) {
    CAPTURE(stride);
    room r(2);
    bool const ahead = stride >= 40;
    auto q = r.queries();
    q.token_stride = stride;
    std::string const queries = ahead ? "queries are " : "queries of 8 elements are ";
    r.wants(queries, [&](auto const& v) { kvevict::plan(r.ctx, one_row, kvevict::prompt(v, q), twenty); });
    r.wants(queries, [&](auto const& v) { kvevict::observe(r.ctx, h2o, kvevict::step(v, q), twenty); });
    auto w = r.weights();
    w.token_stride = stride;
    std::string const weights = ahead ? "softmax rows are " : "softmax rows of 40 elements are ";
    r.wants(weights, [&](auto const& v) { kvevict::plan(r.ctx, one_row, kvevict::prompt(v, w), twenty); });
    r.wants(weights, [&](auto const& v) { kvevict::observe(r.ctx, h2o, kvevict::step(v, w), twenty); });
    if (stride == 1) continue;  // an LSE is one number
    std::string const lse = ahead ? "LSEs are " : "LSEs of 1 elements are ";
    r.wants(lse, [&](auto const& v) {
      kvevict::plan(r.ctx, one_row, kvevict::prompt(v, r.queries()).with_lse(r.rows.lse.data(), stride, 1), twenty);
    });
    r.wants(lse, [&](auto const& v) {
      auto const future = kvevict::future(v, r.last(r.later.queries())).with_lse(r.later.lse.data(), stride, 1);
      kvevict::plan(r.ctx, presets::oracle({.rows = 1}), future, twenty);
    });
  }
}

TEST_CASE("strides: from head to head, beyond 64 bits or backwards") {
  for (std::int64_t const stride : wrong) {
    CAPTURE(stride);
    room r(0);
    bool const ahead = stride >= 40;
    auto q = r.queries();
    q.head_stride = stride;
    r.wants(ahead ? "queries are " : "queries of 8 elements are ",
            [&](auto const& v) { kvevict::plan(r.ctx, one_row, kvevict::prompt(v, q), twenty); });
    auto w = r.weights();
    w.head_stride = stride;
    r.wants(ahead ? "softmax rows are " : "softmax rows of 40 elements are ",
            [&](auto const& v) { kvevict::plan(r.ctx, one_row, kvevict::prompt(v, w), twenty); });
    if (stride == 1) continue;
    r.wants(ahead ? "LSEs are " : "LSEs of 1 elements are ", [&](auto const& v) {
      kvevict::plan(r.ctx, one_row, kvevict::prompt(v, r.queries()).with_lse(r.rows.lse.data(), 4, stride), twenty);
    });
  }
}

TEST_CASE("strides: of the only row there is may be anything, and the same tokens stay") {
  for (std::int64_t const stride : wrong) {
    CAPTURE(stride);
    room r(0);
    auto q = r.queries();
    auto w = r.weights();
    kvevict::keep_set right, keep;
    auto const both = [&](kvevict::query_rows const& queries, kvevict::attention_rows const& weights,
                          std::int64_t of_lse) {
      r.wants("", [&](auto const& v) {
        auto const with_lse = kvevict::prompt(v, queries).with_lse(r.rows.lse.data(), of_lse, 1);
        kvevict::plan(r.ctx, one_row, with_lse, twenty, keep);
        kvevict::plan(r.ctx, one_row, kvevict::prompt(v, weights), twenty);
        kvevict::observe(r.ctx, h2o, kvevict::step(v, queries), twenty);
      });
    };
    both(q, w, 4);
    right = keep;
    q.token_stride = w.token_stride = stride;
    both(q, w, stride);
    CHECK(keep.tokens == right.tokens);
  }
}

TEST_CASE("strides: of a gate's hidden states and its memory") {
  for (std::int64_t const stride : wrong)
    for (std::int32_t const before : {0, 2}) {
      CAPTURE(stride, before);
      kvevict::host ctx;
      gate_case const c({.N = {5}, .H = 2});
      hidden const x = c.states({0}, {5});
      std::int32_t const begin[] = {before, before + 1};
      std::vector<float> p(2);
      auto in = x.rows();
      in.row_begin = begin, in.token_stride = stride;
      auto const call = [&] {
        kvevict::kernels::gate(ctx, c.weights(), in, kvevict::gate_mask::causal, 1, 2, p.data());
      };
      if (before == 0)
        CHECK(refusal(call) == "");
      else
        CHECK_THAT(refusal(call), Contains("a token_stride of " + std::to_string(stride)) && Contains("; "));
    }
  kvevict::host ctx;
  gate_case const two({.N = {3, 3}, .H = 2});
  hidden const x = two.states();
  for (std::int64_t const stride : {smallest, std::int64_t{-1}, largest}) {
    gate_rows memory = two.memory(3);
    std::vector<float> p(12);
    auto in = x.rows(memory.view());
    in.memory.seq_stride = stride;
    CHECK_THAT(
        refusal([&] { kvevict::kernels::gate(ctx, two.weights(), in, kvevict::gate_mask::causal, 2, 2, p.data()); }),
        Contains("a seq_stride of " + std::to_string(stride)) && Contains("; "));
  }
}

}  // namespace policy_strides_test
