// SPDX-License-Identifier: Apache-2.0
// OpenVINO's pages: every element where the CPU plugin's PlainTensor::ptr(block, head, offset, channel) has it, before
// and after a compaction; what of other tensors is refused.
#include <kvevict/apply/compact.hpp>
#include <kvevict/apply/drop_pages.hpp>
#include <kvevict/cache/row_code.hpp>
#include <kvevict/engines/openvino.hpp>
#include <kvevict/heads/adaptive.hpp>
#include <kvevict/kernels/host.hpp>
#include <kvevict/layers/pyramid.hpp>
#include <kvevict/presets/streaming_llm.hpp>
#include <kvevict/select/pages.hpp>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/keep_sets.hpp"

namespace engines_openvino_test {

using namespace kvevict;
using support::contains, support::refusal;

namespace {

struct element_type {
  std::string name;
  std::string get_type_name() const { return name; }
};
/// What an ov::Tensor has of these: memory that copies share.
struct tensor {
  element_type type;
  std::vector<std::size_t> shape, strides;  // elements; bytes
  std::shared_ptr<std::vector<std::byte>> owner;
  std::size_t first = 0;

  element_type const& get_element_type() const { return type; }
  std::vector<std::size_t> const& get_shape() const { return shape; }
  std::vector<std::size_t> get_strides() const { return strides; }
  void* data() { return owner->data() + first; }
  void const* data() const { return owner->data() + first; }
};

std::size_t bytes_of(std::string const& type) { return type == "u8" ? 1 : type == "f32" || type == "i32" ? 4 : 2; }

tensor make(std::string const& type, std::vector<std::size_t> const& shape) {
  tensor t{{type}, shape, {}, {}};
  std::size_t bytes = bytes_of(type);
  for (std::size_t i = shape.size(); i-- > 0; bytes *= shape[i]) t.strides.insert(t.strides.begin(), bytes);
  t.owner = std::make_shared<std::vector<std::byte>>(bytes);
  return t;
}
tensor ints(std::vector<std::int32_t> const& values) {
  tensor t = make("i32", {values.size()});
  std::memcpy(t.data(), values.data(), values.size() * 4);
  return t;
}
/// The layers' tensors, one behind the other.
std::vector<tensor> layers_of(tensor const& pool, std::size_t layers) {
  std::vector<tensor> out;
  for (std::size_t l = 0; l < layers; ++l) {
    out.push_back(pool);
    out[l].shape[0] /= layers, out[l].first = l * out[l].shape[0] * pool.strides[0];
  }
  return out;
}

constexpr std::size_t L = 3, H = 2, D = 8, block = 32, nb = 7;

/// A step of two sequences of 40 and 70 tokens; tables are each layer's, or common.
struct scene {
  std::string type;
  tensor keys, values;
  std::vector<std::vector<std::int32_t>> tables{{4, 2, 6, 0, 3}, {1, 0, 5, 2, 6}, {6, 5, 4, 3, 2}};
  std::vector<std::int32_t> begins{0, 2, 5};
  engines::openvino::cache cache;

  explicit scene(std::string const& t, bool one_table = false)
      : type(t),
        keys(make(t, {L * nb, H, block, D})),
        values(make(t, {L * nb, H, block, D})),
        cache(layers_of(keys, L), layers_of(values, L)) {
    if (one_table) tables[1] = tables[2] = tables[0];
    step();
  }
  void step() {
    auto const past = ints({33, 70}), rows = ints({0, 7, 7}), first = ints(begins);
    std::vector<tensor> of_layers;
    for (auto const& table : tables) of_layers.push_back(ints(table));
    if (tables[0] == tables[1])
      cache.step(past, rows, first, of_layers[0]);
    else
      cache.step(past, rows, first, of_layers);
  }

  /// Of element (block b, head h, row r, channel d) of a layer: PlainTensor::offset of a dense [pages, H, block, D].
  static std::size_t place(std::size_t l, std::size_t b, std::size_t h, std::size_t r, std::size_t d) {
    return (((l * nb + b) * H + h) * block + r) * D + d;
  }
  std::size_t place_of_token(std::size_t l, std::size_t s, std::size_t h, std::size_t t, std::size_t d) const {
    auto const i = static_cast<std::size_t>(begins[s]) + t / block;
    return place(l, static_cast<std::size_t>(tables[l][i]), h, t % block, d);
  }
  /// Another tag in every element: its own number; of values all bits the other way.
  void tag() {
    for (std::size_t i = 0; i < L * nb * H * block * D; ++i) put(keys, i, i), put(values, i, ~i);
  }
  void put(tensor& t, std::size_t i, std::size_t number) const {
    auto const n = static_cast<std::uint32_t>(number);
    std::memcpy(t.owner->data() + i * bytes_of(type), &n, bytes_of(type));
  }
  std::uint32_t at(void const* p) const {
    std::uint32_t n = 0;
    std::memcpy(&n, p, bytes_of(type));
    return n;
  }
  std::uint32_t tag_of(std::size_t number) const {
    return static_cast<std::uint32_t>(number) & (bytes_of(type) == 4 ? 0xffffffffU : 0xffffU);
  }
};

/// Elements of all rows of the view that are not `expected(l, s, h, t, d)`, for both components.
template <class Expected>
std::pair<std::int64_t, std::int64_t> differing(scene const& in, layer_view<> const& view, Expected expected) {
  std::int64_t differ = 0, all = 0;
  for (component const& c : view)
    for (std::int32_t b = 0; b < view.sequences(); ++b)
      for (std::int32_t h = 0; h < view.heads(); ++h)
        for (std::int32_t t = 0; t < view.length(b, h); ++t)
          for (std::size_t d = 0; d < D; ++d, ++all) {
            std::size_t const number = expected(static_cast<std::size_t>(b) / 2, static_cast<std::size_t>(b) % 2,
                                                static_cast<std::size_t>(h), static_cast<std::size_t>(t), d);
            differ +=
                in.at(view.row(c, b, h, t) + d * bytes_of(in.type)) != in.tag_of(c.what == role::k ? number : ~number);
          }
  return {differ, all};
}

/// The keep set of a refusal's policy, by queries of zeros.
template <class Policy> std::string plan_refusal(engines::openvino::cache& kv, std::size_t width, Policy const& p) {
  std::vector<tensor> queries(L, make("f32", {7, width}));
  host ctx;
  return refusal(
      [&] { plan(ctx, p, prompt(kv.view(), kv.queries(queries)), {.tokens_per_head = 20, .layer_count = L}); });
}

struct request_of_no_engine {
  void infer() {}
};

/// GenAI's class, as far as it is read.
struct eviction_config {
  std::size_t snapkv_window_size = 8;
  std::size_t get_start_size() const { return 32; }
  std::size_t get_recent_size() const { return 64; }
  std::size_t max_cache_size = 672;
  std::size_t get_max_cache_size() const { return max_cache_size; }
};

std::string text_of(std::filesystem::path const& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
/// Lines between two marks, without what stands before their first letter.
std::vector<std::string> lines_between(std::string const& text, std::string const& from, std::string const& to) {
  std::vector<std::string> out{""};
  std::size_t const a = text.find(from) + from.size();
  for (char const c : text.substr(a, text.find(to, a) - a)) {
    if (c == '\n')
      out.emplace_back();
    else if (!out.back().empty() || (c != ' ' && c != '/'))
      out.back() += c;
  }
  std::erase(out, "");
  return out;
}

}  // namespace

TEST_CASE("openvino: every element of every page lies where the plugin has it") {
  std::int64_t seen = 0;
  for (char const* const type : {"f32", "f16", "bf16"})
    for (bool const one_table : {false, true}) {
      CAPTURE(type, one_table);
      scene in(type, one_table);
      in.tag();
      auto const view = in.cache.view();
      REQUIRE(view.sequences() == 2 * L);
      CHECK(view.length(0, 0) == 40);
      CHECK(view.length(2 * L - 1, 1) == 70);
      auto const [differ, all] =
          differing(in, view, [&](auto l, auto s, auto h, auto t, auto d) { return in.place_of_token(l, s, h, t, d); });
      CHECK(differ == 0);
      seen += all;
    }
  CHECK(seen == 3 * 2 * 2 * std::int64_t{L * H * 110 * D});
}

TEST_CASE(
    "openvino: after a compaction the plugin's own addresses hold the kept tokens, other ones in each layer and head") {
  reference::generator random(11);
  for (char const* const type : {"f32", "f16", "bf16"})
    for (int turn = 0; turn < 20; ++turn) {
      scene in(type, turn % 2 != 0);
      in.tag();
      auto const view = in.cache.view();
      std::vector<std::vector<std::int32_t>> rows;
      std::int32_t const counts[] = {static_cast<std::int32_t>(random.below(41)),
                                     static_cast<std::int32_t>(random.below(71))};
      for (std::int32_t b = 0; b < view.sequences(); ++b)
        for (std::size_t h = 0; h < H; ++h)
          rows.push_back(support::random_row(random, view.length(b, 0), counts[b % 2]));
      host ctx;
      auto const done = compact(ctx, view, support::keep_of(view, rows));
      CHECK(in.cache.past_lens(done) == std::vector<std::int32_t>{counts[0], counts[1]});
      CHECK(differing(in, done.view(view), [&](auto l, auto s, auto h, auto t, auto d) {
              auto const from = static_cast<std::size_t>(rows[(l * 2 + s) * H + h][t]);
              return in.place_of_token(l, s, h, from, d);
            }).first == 0);
    }
}

TEST_CASE("openvino: the view shown in the header is compiled here") {
  scene in("f32");
  in.tag();
  std::vector<tensor> const keys = layers_of(in.keys, L), values = layers_of(in.values, L);
  tensor const past_lens = ints({33, 70}), subsequence_begins = ints({0, 7, 7}), block_indices_begins = ints(in.begins);
  std::vector<tensor> block_indices;
  for (auto const& table : in.tables) block_indices.push_back(ints(table));
  std::vector<tensor> const outputs(L, make("f32", {7, 4 * D}));
  std::memset(in.keys.data(), 0, in.keys.owner->size());
  request_of_no_engine request;
  host ctx;
  auto const policy = presets::streaming_llm();
  // [view]
  engines::openvino::cache kv(keys, values);  // vectors of tensors: key_cache.N and value_cache.N of all layers
  request.infer();
  kv.step(past_lens, subsequence_begins, block_indices_begins, block_indices);  // the tensors of this step
  auto const cache = kv.view();
  budget const want{.tokens_per_head = 384, .layer_count = L};
  auto const keep = plan(ctx, policy, prompt(cache, kv.queries(outputs)), want);
  auto const done = compact(ctx, cache, keep);
  auto const next = kv.past_lens(done);  // of the next step, whose position_ids go on as if nothing had happened
  // [/view]
  CHECK(next == std::vector<std::int32_t>{40, 70});

  std::filesystem::path const include = KVEVICT_INCLUDE_DIR;
  auto const shown = lines_between(text_of(include / "engines/openvino.hpp"), "they are yours.", "#pragma once");
  CHECK(shown.size() <= 8);
  CHECK(shown == lines_between(text_of(include.parent_path().parent_path() / "tests/unit/engines/openvino_test.cpp"),
                               "// [view]\n", "// [/view]\n"));
}

TEST_CASE("openvino: queries are read where the request has them") {
  scene in("f32");
  std::vector<tensor> queries;
  for (std::size_t l = 0; l < L; ++l) queries.push_back(make("f32", {7, 4 * D}));
  auto const q = in.cache.queries(queries);
  CHECK(q.heads == 4);
  CHECK(q.head_dim == D);
  CHECK(q.rows(0) == 7);
  CHECK(q.rows(1) == 0);
  for (std::int32_t l = 0; l < std::int32_t{L}; ++l)
    CHECK(q.data_of(2 * l) == queries[static_cast<std::size_t>(l)].owner->data());
}

TEST_CASE("openvino: GenAI's CacheEvictionConfig as a policy and a budget") {
  auto const p = engines::openvino::policy_of(eviction_config{});
  CHECK(p.protect.sinks == 32);
  CHECK(p.protect.recent == 64);
  CHECK(p.score.window == 8);
  CHECK(engines::openvino::budget_of(eviction_config{}, 30).tokens_per_head == 672);
  CHECK(engines::openvino::budget_of(eviction_config{}, 30).layer_count == 30);
  for (std::size_t const beyond : {std::size_t{0x80000000u}, (std::size_t{1} << 32) + 100, ~std::size_t{0}})
    CHECK(engines::openvino::budget_of(eviction_config{.max_cache_size = beyond}, 30).tokens_per_head == 0x7fffffff);
}

TEST_CASE("openvino: policies that give heads or layers different numbers of tokens are refused") {
  scene in("f32");
  auto const uneven = presets::snapkv({.window = 4});
  CHECK(contains(plan_refusal(in.cache, 4 * D, uneven.with(layers::pyramid{})),
                 "the cache has one length for all layers (capability::equal_layers), but the policy gives layers "
                 "different numbers of tokens; add .with(layers::uniform{})"));
  CHECK(contains(plan_refusal(in.cache, 4 * D, uneven.with(heads::adaptive{})),
                 "gives heads different numbers of tokens; add .with(heads::uniform{})"));
}

TEST_CASE("openvino: layers of other lengths are no past_lens") {
  scene in("f32");
  auto const view = in.cache.view();
  std::vector<std::vector<std::int32_t>> rows(static_cast<std::size_t>(view.rows()), {0, 1});
  rows[8] = rows[9] = {0};
  host ctx;
  auto const done = compact(ctx, view, support::keep_of(view, rows));
  CHECK(contains(refusal([&] { in.cache.past_lens(done); }),
                 "layer 2 has 1 tokens of sequence 0 and layer 0 has 2, but past_lens is one number for all; keep "
                 "equally many in each layer"));
}

TEST_CASE("openvino: keys by channel are no tokens that move") {
  std::vector<tensor> const keys = layers_of(make("u8", {L * nb, H, 40, D}), L),
                            values = layers_of(make("u8", {L * nb, H, block, D + 8}), L);
  engines::openvino::cache kv(keys, values);
  kv.step(ints({33, 70}), ints({0, 7, 7}), ints({0, 2, 5}), ints({4, 2, 6, 0, 3}));
  host ctx;
  auto const view = kv.view();
  CHECK(view.begin()->rows.offset == 8 * D);  // behind scales and zero points
  CHECK(contains(
      refusal([&] { plan(ctx, presets::streaming_llm(), contents(view), {.tokens_per_head = 20, .layer_count = L}); }),
      "plan: the cache gives up whole pages of 32 tokens only (capability, or scales that cover a page), but the "
      "policy keeps single tokens; add .with(select::pages{}) and apply its keep sets by drop_pages"));
}

TEST_CASE("openvino: u8 codes are read with the plugin's scales and zero points, by token and by channel") {
  constexpr std::size_t E = 16;
  for (bool const by_channel : {false, true}) {
    std::size_t const key_rows = by_channel ? block + 8 : block, key_bytes = by_channel ? E : E + 8;
    tensor keys = make("u8", {L * nb, H, key_rows, key_bytes}), values = make("u8", {L * nb, H, block, E + 8});
    reference::generator random(3);
    for (tensor* const t : {&keys, &values})
      for (std::byte& x : *t->owner) x = static_cast<std::byte>(random.below(64));  // floats of it are finite
    engines::openvino::cache kv(layers_of(keys, L), layers_of(values, L));
    std::vector<std::int32_t> const table{4, 2, 6, 0, 3};
    kv.step(ints({33, 70}), ints({0, 7, 7}), ints({0, 2, 5}), ints(table));
    auto const view = kv.view();
    std::int64_t differ = 0, seen = 0;
    for (component const& c : view)
      for (std::int32_t b = 0; b < view.sequences(); ++b)
        for (std::int32_t h = 0; h < view.heads(); ++h)
          for (std::int32_t t = 0; t < view.length(b, h); ++t) {
            std::size_t const l = static_cast<std::size_t>(b) / 2, s = static_cast<std::size_t>(b) % 2,
                              r = static_cast<std::size_t>(t) % block,
                              page = static_cast<std::size_t>(
                                  table[(s == 0 ? 0 : 2) + static_cast<std::size_t>(t) / block]),
                              head = (l * nb + page) * H + static_cast<std::size_t>(h);
            bool const channels = by_channel && c.what == role::k;
            std::byte const* const p = (c.what == role::k ? keys : values).owner->data() +
                                       (channels ? head * (block + 8) * E : (head * block + r) * (E + 8));
            float x[E];
            row_code(c).decode(coded_rows(view, c, b, h)(t), 0, E, x);
            for (std::size_t d = 0; d < E; ++d, ++seen) {
              float scale = 0, zero = 0;
              std::memcpy(&scale, p + (channels ? 4 * d : 0), 4);
              std::memcpy(&zero, p + (channels ? 4 * (E + d) : 4), 4);
              auto const code = std::to_integer<std::uint8_t>(p[channels ? 8 * E + r * E + d : 8 + d]);
              differ += x[d] != (static_cast<float>(code) - zero) * scale;
            }
          }
    CHECK(differ == 0);
    CHECK(seen == 2 * std::int64_t{L * H * 110 * E});
  }
}

TEST_CASE("openvino: keys by channel give up pages, of each layer's table, and no byte changes") {
  tensor const keys = make("u8", {L * nb, H, block + 8, D}), values = make("u8", {L * nb, H, block, D + 8});
  for (tensor const* const t : {&keys, &values})
    for (std::byte& x : *t->owner) x = std::byte{1};
  std::vector<std::byte> const before = *keys.owner;
  engines::openvino::cache kv(layers_of(keys, L), layers_of(values, L));
  std::vector<tensor> const tables{ints({4, 2, 6, 0, 3}), ints({1, 0, 5, 2, 6}), ints({6, 5, 4, 3, 2})};
  kv.step(ints({33, 93}), ints({0, 7, 7}), ints({0, 2, 5}), tables);
  host ctx;
  auto const policy = presets::streaming_llm({.sinks = 1}).with(heads::together{}).with(select::pages{});
  auto const keep = plan(ctx, policy, contents(kv.view()), {.tokens_per_head = 70, .layer_count = L});
  auto const done = drop_pages(ctx, kv.view(), keep);
  CHECK(kv.past_lens(done) == std::vector<std::int32_t>{40, 61});  // 29 in the last page, and the first one
  auto const entries = [&](std::int64_t row) {
    return std::vector<std::int32_t>(done.entries(row).begin(), done.entries(row).end());
  };
  CHECK(entries(0) == std::vector<std::int32_t>{4, 2});
  CHECK(entries(1) == std::vector<std::int32_t>{6, 3});
  CHECK(entries(5) == std::vector<std::int32_t>{4, 2});
  CHECK(*keys.owner == before);
}

TEST_CASE("openvino: tensors of another engine or kind are refused") {
  using engines::openvino::cache;
  auto const message = [](std::string const& type, std::vector<std::size_t> const& shape, auto damage) {
    std::vector<tensor> keys = layers_of(make(type, shape), L);
    damage(keys);
    return refusal([&] { cache(keys, keys); });
  };
  auto const nothing = [](auto&) {};
  std::size_t const all = L * nb;
  CHECK(message("f32", {all, H, block, D}, nothing).empty());
  CHECK(contains(message("f32", {all, H, 16, D}, nothing),
                 "key_cache.0 has 16 rows a page; pages are 32 tokens, and 8 rows more where u8 keys are by channel"));
  CHECK(contains(message("u8", {all, H, 36, D}, nothing), "key_cache.0 has 36 rows a page"));
  CHECK(contains(message("u8", {all, H, block, 8}, nothing),
                 "key_cache.0 has rows of 8 bytes; a row of u8 is a scale, a zero point and a code for each channel"));
  CHECK(contains(message("f32", {all, H, 40, D}, nothing), "key_cache.0 has 40 rows a page"));
  auto const halves = [](auto& keys) {
    for (auto& t : keys) t.shape[3] /= 2;
  };
  CHECK(refusal([&] {
          std::vector<tensor> keys = layers_of(make("f32", {all, H, block, D}), L);
          halves(keys), cache(keys, keys);
        }).empty());
  CHECK(contains(refusal([&] {
                   std::vector<tensor> keys = layers_of(make("u8", {all, H, 40, D}), L),
                                       values = layers_of(make("u8", {all, H, block, D + 8}), L);
                   halves(keys), cache(keys, values);
                 }),
                 "rows of key_cache.0 have 4 bytes and are 8 apart, but scales of u8 keys by channel lie over 8 of "
                 "them; give a tensor whose rows are dense"));
  CHECK(contains(message("i32", {all, H, block, D}, nothing),
                 "key_cache.0 is i32; set KV_CACHE_PRECISION to f32, f16, bf16 or u8"));
  CHECK(contains(message("f16", {all, H, block},
                         [](auto& keys) {
                           for (auto& t : keys) t.shape.resize(3);
                         }),
                 "key_cache.0 has 3 axes; give the CPU plugin's [pages, heads, 32, head size]"));
  CHECK(
      contains(message("f32", {all, H, block, D},
                       [](auto& keys) {
                         keys[1].strides = {H * block * D, block * D, D, 1};
                       }),
               "elements of key_cache.1 are 1 bytes apart and 4 long; give strides in bytes, as ov::Tensor has them"));
  CHECK(contains(message("f32", {all, H, block, D}, [](auto& keys) { std::swap(keys[1], keys[2]); }),
                 "k of layer 2 has another shape, other strides or does not lie as far from the layer before as the "
                 "others do; wrap the layers' tensors around parts of one allocation, or make a cache of each layer"));
  for (std::size_t const axis : std::vector<std::size_t>{0, 1, 2})  // as of a part of another tensor
    CHECK(contains(message("f32", {all, H, block, D}, [&](auto& keys) { keys[1].strides[axis] += 4; }),
                   "k of layer 1 has another shape, other strides or does not lie as far"));
  CHECK(contains(message("f32", {all, H, block, D}, [](auto& keys) { keys.clear(); }),
                 "key_cache of 0 layers and value_cache of 0; give both of each layer"));
}

TEST_CASE("openvino: inputs of another step are refused") {
  scene in("f32");
  auto const step = [&](tensor const& past, tensor const& rows, tensor const& begins,
                        std::vector<tensor> const& tables) {
    return refusal([&] { in.cache.step(past, rows, begins, tables); });
  };
  std::vector<tensor> const tables(L, ints({4, 2, 6, 0, 3}));
  CHECK(step(ints({33, 70}), ints({0, 7, 7}), ints({0, 2, 5}), tables).empty());
  CHECK(contains(step(ints({33, 70}), ints({0, 7}), ints({0, 2, 5}), tables),
                 "subsequence_begins is no i32 tensor of 3 or more elements; give the model's own input"));
  CHECK(contains(step(ints({33, 70}), ints({0, 7, 7}), make("i64", {3}), tables), "block_indices_begins is no i32"));
  CHECK(
      contains(step(ints({33, 70}), ints({0, 7, 7}), ints({0, 2, 6}), tables), "block_indices is no i32 tensor of 6"));
  CHECK(contains(step(ints({33, 70}), ints({0, 7, 7}), ints({0, 2, 5}), {tables[0]}),
                 "block_indices of 1 layers for a cache of 3; give each layer's, or one for all"));
  tensor scalar = ints({33});
  scalar.shape.clear(), scalar.strides.clear();
  CHECK(contains(step(scalar, ints({0, 7}), ints({0, 2}), tables), "past_lens is no i32 tensor of 1 or more"));
  CHECK(contains(step(ints({33, 70}), ints({0, 7, 7}), ints({0, 2, -1}), tables),
                 "block_indices_begins does not ascend from 0 on; give the tensor of a step that has run"));
  CHECK(contains(step(ints({33, 70}), ints({0, 7, 7}), ints({0, 6, 5}), tables), "block_indices_begins does not"));
  CHECK(contains(step(ints({33, 70}), ints({-1, 7, 7}), ints({0, 2, 5}), tables), "subsequence_begins does not"));
  CHECK(contains(step(ints({33, -1}), ints({0, 7, 7}), ints({0, 2, 5}), tables), "past_lens of sequence 1 is -1"));
  CHECK(contains(step(ints({33, 0x7fffffff}), ints({0, 7, 8}), ints({0, 2, 5}), tables), "past_lens of sequence 1"));
}

TEST_CASE("openvino: queries of another step or shape are refused") {
  scene in("f32");
  auto const message = [&](std::vector<tensor> const& queries) { return refusal([&] { in.cache.queries(queries); }); };
  auto const of_each = [](std::vector<std::size_t> const& shape) { return std::vector(L, make("f32", shape)); };
  CHECK(message(of_each({7, 4 * D})).empty());
  CHECK(contains(message(of_each({6, 4 * D})),
                 "queries are 6 rows of 32 f32 for a step of 7 tokens and 2 heads of 8; give f32 (T,Hq·D) of the last "
                 "step"));
  CHECK(contains(message(of_each({7})), "queries have 1 axes; give f32 (T,Hq·D) of the last step"));
  CHECK(contains(message(of_each({7, 2 * D, 2})), "queries have 3 axes"));
  std::vector<tensor> other = of_each({7, 4 * D});
  other[1] = make("f32", {7, 2 * D});
  CHECK(contains(message(other),
                 "queries of layers 0 and 1 are 32 and 16 wide; make a cache of the layers of each width"));
  engines::openvino::cache fresh(layers_of(in.keys, L), layers_of(in.values, L));
  CHECK(contains(refusal([&] { fresh.queries(of_each({7, 4 * D})); }), "queries before the first step; call step"));
}

TEST_CASE("openvino: a refused step changes nothing of the last one") {
  for (bool const one_table : {false, true}) {
    scene in("f32", one_table);
    in.tag();
    std::vector<tensor> const one(1, ints({0, 1, 2, 3, 4})), last_wrong{one[0], one[0], ints({0})};
    for (auto const& tables : {one, last_wrong})
      CHECK(!refusal([&] { in.cache.step(ints({1, 64}), ints({0, 1, 2}), ints({0, 1, 5}), tables); }).empty());
    CHECK(!refusal([&] { in.cache.step(ints({1, -1}), ints({0, 1, 2}), ints({0, 1, 5}), one[0]); }).empty());
    auto const view = in.cache.view();
    CHECK(view.epoch == 1);
    CHECK(differing(in, view, [&](auto l, auto s, auto h, auto t, auto d) {
            return in.place_of_token(l, s, h, t, d);
          }).first == 0);
    CHECK(in.cache.queries(std::vector<tensor>(L, make("f32", {7, 4 * D}))).rows(0) == 7);
  }
}

}  // namespace engines_openvino_test
