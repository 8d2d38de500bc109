// SPDX-License-Identifier: Apache-2.0
// engines/llama.hpp on a stand-in for llama.cpp; tests/engines/llama runs the engine itself.
#include <deque>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <string>
#include <utility>

#include <kvevict/engines/llama.hpp>
#include <kvevict/presets/all.hpp>

#include "support/catch.hpp"
#include "support/stock_llama.hpp"

namespace engines_llama_test {

using namespace kvevict;
namespace llama = engines::llama;

namespace {

using cells_of = llama::cache<stock::ggml_tensor>;

/// Positions and sequences of `count` tokens: `sequences` of them in turn, each from `from` on.
class batch {
 public:
  batch(std::int32_t from, std::int32_t count, std::int32_t sequences = 1, std::int32_t first = 0) {
    for (std::int32_t i = 0; i < count; ++i)
      positions_.push_back(from + i / sequences), ids_.push_back(first + i % sequences), counts_.push_back(1);
    for (auto& id : ids_) rows_.push_back(&id);
    all = {count, positions_.data(), counts_.data(), rows_.data()};
  }
  stock::llama_batch all;

 private:
  std::vector<std::int32_t> positions_, ids_, counts_;
  std::vector<std::int32_t*> rows_;
};

struct engine {
  cells_of cells;
  stock::llama_context ctx;
  host h;

  explicit engine(llama::options const& o = {.window = 4}) : cells(o) {
    ctx.cb_eval = cells.callback, ctx.user_data = cells.user_data(), ctx.sequences = o.sequences;
  }
  std::int32_t decode(batch const& b) { return cells.decode(&ctx, b.all); }
  template <class Policy> std::int32_t evict(Policy const& p, std::int32_t tokens) {
    return cells.evict(h, &ctx, llama::one_set(p), cells.window(), tokens);
  }
};

/// Elements of the view that are not those of their tokens, or not where llama.cpp's code has them.
std::int64_t wrong(engine& e) {
  layer_view<> const v = e.cells.view();
  auto const& c = e.ctx;
  std::int64_t count = 0;
  for (std::int32_t b = 0; b < v.sequences(); ++b)
    for (std::int32_t h = 0; h < v.heads(); ++h)
      for (std::int32_t t = 0; t < v.length(b, h); ++t) {
        std::int32_t const l = v.pages.layer_of(b), s = v.pages.sequence_of(b), cell = v.pages.entry(b, h, t);
        std::int32_t const position = element<std::int32_t>(v, *v.find(role::position), b, h, t);
        auto const& held = c.memory[static_cast<std::size_t>(cell)];
        count += held.sequence != s || held.position != position;
        for (std::int32_t d = 0; d < c.D; ++d) {
          component const &k = *v.find(role::k), &values = *v.find(role::v);
          auto const *x = reinterpret_cast<float const*>(v.row(k, b, h, t) + k.rows.unit_offset(d, 4)),
                     *y = reinterpret_cast<float const*>(v.row(values, b, h, t) + values.rows.unit_offset(d, 4));
          std::int64_t const layer = std::int64_t{l} * c.cells * c.row(), by_row = layer + cell * c.row() + h * c.D + d,
                             by_column = layer + (h * c.D + d) * c.cells + cell;
          count += x != c.k.data() + by_row || *x != stock::tag(0, l, s, position, h, d);
          count += y != c.v.data() + (c.flash ? by_row : by_column) || *y != stock::tag(1, l, s, position, h, d);
        }
      }
  return count;
}

/// What the header's comment shows, as it stands there: the lengths of the text and of what is left of it.
std::pair<std::int32_t, std::int32_t> as_the_header_shows(stock::llama_context* model) {
  using namespace stock;
  llama_context_params params;
  std::int32_t read = 0;
  std::deque<batch> text;
  auto const next = [&](llama_batch& out) {
    out = text.emplace_back(read, 64).all;
    return (read += 64) <= 1024;
  };
  // shown:
  kvevict::engines::llama::cache<ggml_tensor> cells;
  params.cb_eval = cells.callback, params.cb_eval_user_data = cells.user_data();
  llama_context* ctx = llama_init_from_model(model, params);
  auto const policy = kvevict::engines::llama::one_set(kvevict::presets::snapkv());
  kvevict::host host;
  for (llama_batch batch; next(batch); cells.decode(ctx, batch))
    if (cells.free() < batch.n_tokens) cells.evict(host, ctx, policy, cells.window(), 384);
  // that is all
  return {read - 64, cells.length(0)};
}

#ifdef KVEVICT_INCLUDE_DIR
std::string text_of(std::filesystem::path const& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
/// What is between two marks, without spaces and comments.
std::string code_between(std::string const& text, std::string const& from, std::string const& to) {
  std::size_t const a = text.find(from) + from.size();
  std::string const code = std::regex_replace(text.substr(a, text.find(to, a) - a), std::regex("(^|\n) *//"), "$1");
  return std::regex_replace(std::regex_replace(code, std::regex("//[^\n]*"), ""), std::regex("\\s"), "");
}

TEST_CASE("llama.cpp: the lines that the header shows are those that are compiled here") {
  std::string const header = code_between(text_of(std::filesystem::path(KVEVICT_INCLUDE_DIR) / "engines/llama.hpp"),
                                          "where llama.h is.\n//", "// The view that policies read");
  CHECK(header.find("cells.evict") != std::string::npos);
  CHECK(header == code_between(text_of(__FILE__), "// shown:", "// that is all"));
}
#endif

}  // namespace

TEST_CASE("llama.cpp: what the header shows holds a text of 1 024 tokens in 512 cells") {
  stock::llama_context model;
  model.cells = 512, model.ubatch = 32, model.L = 2;
  auto const [read, left] = as_the_header_shows(&model);
  CHECK(read == 1024);
  CHECK(left == 512);
}

TEST_CASE("llama.cpp's cells: every element of K and V is reached, after evictions, with and without flash attention") {
  for (bool const flash : {false, true}) {
    engine e({.sequences = 2, .window = 4});
    e.ctx.flash = flash, e.ctx.cast = flash;
    for (std::int32_t from = 0; from < 60; from += 6) {
      if (e.cells.free() < 12) CHECK(e.evict(presets::snapkv({.window = 4}), 8) > 0);
      REQUIRE(e.decode(batch(from, 12, 2)) == 0);
      CHECK(wrong(e) == 0);
    }
    auto const v = e.cells.view();
    CHECK(v.length(0, 0) == v.length(1, 0));
    CHECK(v.find(role::k)->turned_by == rotation::rope);
    std::int32_t disorder = 0;
    for (std::int32_t t = 1; t < v.length(0, 0); ++t) disorder += v.pages.entry(0, 0, t) < v.pages.entry(0, 0, t - 1);
    CHECK(disorder > 0);
  }
}

TEST_CASE("llama.cpp's queries: the ring holds the last ones of each sequence, through batches of several graphs") {
  engine e({.sequences = 2, .window = 4});
  e.ctx.ubatch = 5;
  e.decode(batch(0, 14, 2)), e.decode(batch(7, 3, 1, 1));
  auto const evidence = e.cells.window();
  query_rows const& q = evidence.attention;
  CHECK(evidence.attention.scale == 0.5f);
  for (std::int32_t b = 0; b < 6; ++b) {
    REQUIRE(q.rows(b) == 4);
    for (std::int32_t i = 0; i < 4; ++i)
      for (std::int32_t h = 0; h < 4; ++h)
        for (std::int32_t d = 0; d < 4; ++d) {
          std::int32_t const s = b % 2, position = (s == 0 ? 3 : 6) + i;
          auto const* const row = static_cast<float const*>(static_cast<void const*>(q.data_of(b)));
          CHECK(q.places().position(b, i) == position);
          CHECK(row[(q.first_row(b) + i) * q.token_stride + h * q.head_stride + d] ==
                stock::tag(2, b / 2, s, position, h, d));
        }
  }
}

TEST_CASE("llama.cpp's context of fixed size takes any length, by every policy that it can follow") {
  auto const run = [](auto const& policy, auto what, std::int32_t state) {
    engine e({.window = 4, .state_floats = state});
    auto const one = llama::one_set(policy);
    for (std::int32_t from = 0; from < 400; from += 8) {
      if (e.cells.free() < 8) CHECK(e.cells.evict(e.h, &e.ctx, one, what(e), 16) == 16);
      REQUIRE(e.decode(batch(from, 8)) == 0);
      if constexpr (requires { one.score.state_floats(); })
        if (state > 0) e.cells.observe(e.h, one, 16);
    }
    CHECK(wrong(e) == 0);
    CHECK(e.cells.length(0) <= 32);
  };
  auto const window = [](engine& e) { return e.cells.window(); };
  run(presets::snapkv({.window = 4}), window, 0);
  run(presets::ahakv({.recent = 4}), window, 0);
  run(
      presets::streaming_llm(), [](engine& e) { return e.cells.contents(); }, 0);
  run(
      presets::keydiff(), [](engine& e) { return e.cells.contents(); }, 0);
  run(
      presets::h2o(), [](engine& e) { return e.cells.remembered(); }, 1);
}

TEST_CASE("llama.cpp: a router's softmax behind the attention is not the softmax of the logits") {
  for (bool const flash : {false, true}) {
    engine e;
    e.ctx.flash = flash, e.ctx.experts = true;
    REQUIRE(e.decode(batch(0, 8)) == 0);
    CHECK(e.cells.window().attention.scale == 0.5f);
    CHECK(wrong(e) == 0);
  }
}

TEST_CASE("llama.cpp: a call that fails leaves what the memory holds, drafts are taken back") {
  engine e({.window = 8});
  batch const more(8, 16);
  e.decode(batch(0, 8)), e.ctx.fail_at = 1;
  CHECK(e.decode(more) == 2);
  CHECK(e.cells.length(0) == 16);
  e.ctx.fail_at = -1;
  CHECK(e.decode(batch(16, 16)) == 0);
  CHECK(e.decode(batch(32, 1)) == 1);
  CHECK(e.cells.length(0) == 32);
  CHECK(wrong(e) == 0);
  CHECK(e.cells.remove(&e.ctx, 0, 28, -1));
  CHECK(e.cells.free() == 4);
  for (std::int32_t b = 0; b < 3; ++b) {
    query_rows const left = e.cells.window().attention;
    REQUIRE(left.rows(b) == 4);
    CHECK(left.places().position(b, 3) == 27);
  }
  CHECK(e.evict(presets::snapkv({.window = 4}), 10) == 18);
  CHECK(e.decode(batch(28, 4)) == 0);
  CHECK(wrong(e) == 0);
  CHECK(e.cells.remove(&e.ctx, 0, 0, -1));
  CHECK(e.cells.free() == 32);
  CHECK(e.decode(batch(0, 9)) == 0);
  CHECK(e.cells.window().attention.rows(0) == 8);
}

TEST_CASE("llama.cpp: what the adapter cannot follow is refused with what to do") {
  using Catch::Contains;
  auto const snap = presets::snapkv({.window = 4});
  auto const first = [](auto change) {
    engine e;
    change(e.ctx);
    e.decode(batch(0, 8));
  };
  CHECK_THROWS_WITH(first([](auto& c) { c.streams = 2; }), Contains("set llama_context_params::kv_unified"));
  CHECK_THROWS_WITH(first([](auto& c) { c.model.swa = 4; }), Contains("sliding windows"));
  CHECK_THROWS_WITH(first([](auto& c) { c.cells_per_layer = true; }), Contains("cells of their own"));
  CHECK_THROWS_WITH(first([](auto& c) { c.alibi = 8; }), Contains("ALiBi"));
  CHECK_THROWS_WITH(first([](auto& c) { c.alibi = 8, c.flash = true; }), Contains("ALiBi"));
  CHECK_THROWS_WITH(first([](auto& c) { c.tanh = true; }), Contains("use flash attention"));
  CHECK_THROWS_WITH(first([](auto& c) { c.own_v = false; }), Contains("MLA"));
  CHECK_THROWS_WITH(first([](auto& c) { c.uneven = 8; }), Contains("one distance"));
  CHECK_THROWS_WITH(first([](auto& c) { c.buffer.host = false; }), Contains("offload_kqv"));
  CHECK_THROWS_WITH(first([](auto& c) { c.of_indices = stock::GGML_TYPE_F32; }), Contains("type i64"));
  for (llama::options const& o : {llama::options{.window = 1 << 20}, {.state_floats = 1 << 20}, {.window = -1}})
    CHECK_THROWS_WITH(cells_of(o), Contains("no number below 0 or above 1048575"));
  CHECK_THROWS_WITH(first([](auto& c) { c.cb_eval = nullptr; }), Contains("set cb_eval"));

  engine e;
  CHECK_THROWS_WITH(e.cells.view(), Contains("call decode() first"));
  CHECK_THROWS_WITH(e.decode(batch(0, 8, 1, 1)), Contains("give options::sequences"));
  e.decode(batch(0, 16));
  CHECK_THROWS_WITH(e.evict(presets::random({.recent = 0}), 8), Contains("the cache needs the newest token"));
  CHECK_THROWS_WITH(e.cells.evict(e.h, &e.ctx, snap, e.cells.window(), 8), Contains("heads::together"));
  auto const old = e.cells.window();
  e.decode(batch(16, 2));
  CHECK_THROWS_WITH(e.cells.evict(e.h, &e.ctx, llama::one_set(snap), old, 8), Contains("planned in epoch"));
  CHECK(e.cells.length(0) == 18);
  SECTION("a shift") {
    for (auto& x : e.ctx.memory) x.position -= x.position < 0 ? 0 : 2;
    CHECK_THROWS_WITH(e.evict(snap, 8), Contains("shift nothing"));
  }
  SECTION("cells freed behind the adapter") {
    stock::llama_memory_seq_rm(&e.ctx, 0, 4, 8);
    CHECK_THROWS_WITH(e.decode(batch(18, 4)), Contains("which another token has"));
    CHECK_THROWS_WITH(e.decode(batch(22, 4)), Contains("make another context"));
  }
  SECTION("no queries kept") {
    engine none({.window = 0});
    none.decode(batch(0, 16));
    CHECK_THROWS_WITH(none.cells.window(), Contains("options::window"));
  }
}

}  // namespace engines_llama_test
