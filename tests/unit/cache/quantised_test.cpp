// SPDX-License-Identifier: Apache-2.0
// Codes and their scales as numbers: every code, every format, every layout, to the bit; and what is refused.
#include <kvevict/cache/row_reader.hpp>
#include <kvevict/cache/validate.hpp>

#include <cmath>

#include "support/catch.hpp"
#include "support/quantised_case.hpp"

namespace cache_quantised_test {

using namespace kvevict;
using namespace quantised_case;

namespace {

bool same(float got, double want) {
  return std::isnan(want) ? std::isnan(got)
                          : static_cast<double>(got) == want && std::signbit(got) == std::signbit(want);
}

layouts::cache_shape two_sequences() {
  layouts::cache_shape s;
  s.lengths = {21, 6}, s.heads = 3;
  return s;
}
template <class F> void for_each_case(F f) {
  for (format const& is : formats())
    for (layouts::layout const l : layouts::all) {
      if (is.one_run && !has_one_run(l)) continue;
      layouts::with_layout(l, shape_of(two_sequences(), is), [&](auto& cache) {
        quantise(cache, is, 3);
        CAPTURE(is.name, cache.name());
        f(is, cache);
      });
    }
}

/// One row of 256 codes, 0 to 255.
struct all_codes {
  std::byte row[256];
  std::int32_t length = 1;
  layer_view<> view;

  all_codes() {
    for (int i = 0; i < 256; ++i) row[i] = static_cast<std::byte>(i);
    view.pages.sequences = view.pages.heads = view.pages.page_size = view.pages.columns = 1;
    view.lengths = {&length, 1, 0};
    component k;
    k.rows.base = row, k.rows.page_count = 1, k.rows.slot_stride = k.rows.page_stride = 256, k.rows.run_bytes = 256;
    k.type = dtype::opaque;
    view = view.with(k);
  }
  row_reader<std::int32_t> read(component const& as) {
    view.components[0] = as;
    validate(view);
    return {view, view.components[0], 0, 0};
  }
  component plain() const {
    component c = view.components[0];
    c.type = dtype::opaque, c.quant = {}, c.scope = quant_scope::none, c.group = 0;
    return c;
  }
};

std::string refused(layer_view<> const& v) {
  try {
    validate(v);
    return {};
  } catch (contract_violation const& e) {
    return e.what();
  }
}
bool contains(std::string const& text, char const* what) { return text.find(what) != std::string::npos; }

}  // namespace

TEST_CASE("every code of an 8-bit type is the number that it stands for") {
  all_codes a;
  for (float const scale : {1.0f, 0.37f}) {
    std::size_t wrong = 0;
    auto const check = [&](dtype type, float zero, auto number) {
      auto const x = a.read(quantised::by_tensor(a.plain(), type, scale, zero));
      REQUIRE(x.width() == 256);
      for (std::int32_t d = 0; d < 256; ++d)
        wrong +=
            !same(x(0, d),
                  static_cast<double>(static_cast<float>(number(static_cast<byte>(d)) * static_cast<double>(scale))));
    };
    check(dtype::fp8_e4m3, 0, e4m3);
    check(dtype::fp8_e5m2, 0, e5m2);
    check(dtype::i8, 0, [](byte x) { return static_cast<double>(i8(x)); });
    check(dtype::i8, -3.5f, [](byte x) { return i8(x) + 3.5; });
    check(dtype::u8, 128, [](byte x) { return x - 128.0; });
    CHECK(wrong == 0);
  }
}

TEST_CASE("8-bit floats are what OCP's table says of their ends") {
  static_assert(to_float(fp8_e4m3{0x7e}) == 448.0f && to_float(fp8_e4m3{0x01}) == 0x1p-9f);
  static_assert(to_float(fp8_e4m3{0x08}) == 0x1p-6f && to_float(fp8_e4m3{0xb8}) == -1.0f);
  static_assert(to_float(fp8_e5m2{0x7b}) == 57344.0f && to_float(fp8_e5m2{0x01}) == 0x1p-16f);
  CHECK((std::isnan(to_float(fp8_e4m3{0x7f})) && std::isnan(to_float(fp8_e4m3{0xff}))));
  CHECK((std::isinf(to_float(fp8_e5m2{0x7c})) && std::isnan(to_float(fp8_e5m2{0x7d}))));
}

TEST_CASE("both codes of a byte, in every order") {
  all_codes a;
  std::size_t wrong = 0;
  for (dtype const type : {dtype::i4, dtype::u4})
    for (nibble_order const order : {nibble_order::low_first, nibble_order::high_first}) {
      component c = quantised::by_tensor(a.plain(), type, 0.5f);
      c.quant.nibbles = order;
      auto const x = a.read(c);
      REQUIRE(x.width() == 512);
      for (std::int32_t d = 0; d < 512; ++d) {
        bool const high = (d % 2 == 1) == (order == nibble_order::low_first);
        std::int32_t const code = high ? d / 2 / 16 : d / 2 % 16;
        wrong += x(0, d) != 0.5f * static_cast<float>(type == dtype::i4 && code > 7 ? code - 16 : code);
      }
    }
  CHECK(wrong == 0);
}

TEST_CASE("a row reader decodes every format in every layout to the bit, one by one, in chunks and multiplied") {
  for_each_case([](format const& is, auto& cache) {
    validate(cache.view);
    std::vector<float> vector;
    for (int d = 0; d < D; ++d) vector.push_back(std::cos(static_cast<float>(d)));
    std::size_t wrong = 0;
    for (role const what : {role::k, role::v}) {
      component const& c = *cache.view.find(what);
      REQUIRE(c.width() == D);
      cache.for_each_slot([&](int b, int h, int t) {
        auto const want = numbers_of(cache.view, is, what, b, h, t);
        row_reader const x(cache.view, c, b, h);
        double dot = 0, size = 0;
        for (std::int32_t d = 0; d < D; ++d) {
          auto const i = static_cast<std::size_t>(d);
          wrong += x(t, d) != static_cast<float>(want[i]);
          dot += want[i] * static_cast<double>(vector[i]), size += std::abs(want[i]);
        }
        for (std::int32_t first = 0; first < D; first += 5) {
          float chunk[row_chunk];
          x.read(t, first, chunk);
          for (std::int32_t i = 0; i < row_chunk; ++i)
            wrong += chunk[i] != (first + i < D ? static_cast<float>(want[static_cast<std::size_t>(first + i)]) : 0.0f);
        }
        wrong += !(std::abs(static_cast<double>(x.dot(t, vector.data())) - dot) <= 1e-6 * size);
      });
    }
    CHECK(wrong == 0);
  });
}

TEST_CASE("scales of a token serve all of its heads") {
  format is = formats()[3];
  is.describe = [](component c) { return maker::by_component(c, dtype::i8, quant_scope::token); };
  layouts::with_layout(layouts::layout::hnd, shape_of(two_sequences(), is), [&](auto& cache) {
    quantise(cache, is, 5);
    for (auto& c : cache.view.components)
      if (c.what == role::k_scale || c.what == role::v_scale) c.rows.head_stride = 0;
    validate(cache.view);
    CHECK(cache.view.demands().one_set_for_heads);  // else tokens of one head would lose another's scales
    std::size_t wrong = 0;
    cache.for_each_slot([&](int b, int h, int t) {
      auto const row = bytes_of(cache.view, *cache.view.find(role::k), b, h, t),
                 of_head_0 = bytes_of(cache.view, *cache.view.find(role::k_scale), b, 0, t);
      row_reader const x(cache.view, *cache.view.find(role::k), b, h);
      for (int d = 0; d < D; ++d) wrong += x(t, d) != static_cast<float>(is.number(row.data(), of_head_0.data(), h, d));
    });
    CHECK(wrong == 0);
  });
}

TEST_CASE("layers of a stack have scales of their own, for all heads or one a head") {
  float const scales[] = {0.5f, 0.25f, 2.0f, 8.0f};  // (L,H)
  std::byte rows[2 * 2 * 4];                         // (L,H,D)
  for (int i = 0; i < 16; ++i) rows[i] = static_cast<std::byte>(i + 1);
  std::int32_t const lengths[] = {1, 1};
  layer_view<> v;
  v.pages.sequences = v.pages.layers = v.pages.heads = 2, v.pages.page_size = v.pages.columns = 1;
  v.lengths = {lengths, 1, 0};
  component k;
  k.rows.base = rows, k.rows.page_count = 1, k.rows.page_stride = 16, k.rows.layer_stride = 8, k.rows.head_stride = 4;
  k.rows.slot_stride = 4, k.rows.run_bytes = 4;
  for (bool const of_heads : {false, true}) {
    k = of_heads ? quantised::by_head(k, dtype::i8, scales, dtype::f32, 8)
                 : quantised::by_tensor(k, dtype::i8, scales, dtype::f32, 8);
    auto const view = v.with(k);
    validate(view);
    for (int l = 0; l < 2; ++l)
      for (int h = 0; h < 2; ++h)
        CHECK(row_reader(view, *view.find(role::k), l, h)(0, 3) ==
              static_cast<float>(8 * l + 4 * h + 4) * scales[2 * l + (of_heads ? h : 0)]);
  }
}

TEST_CASE("scales of a page's channels, before its slots and behind them") {
  // OpenVINO's keys: 32 slots of 64 bytes, then 64 scales and 64 zero points; or those first
  for (bool const before : {false, true}) {
    layouts::cache_shape s;
    s.lengths = {60, 30}, s.heads = 3, s.head_dim = D, s.page_size = 40, s.type = dtype::opaque, s.positions = 0;
    layouts::with_layout(layouts::layout::hnd, s, [&](auto& cache) {
      cache.view.pages.page_size = 32;
      auto& k = cache.view.components[0];
      std::int32_t const scales = before ? -512 : 2048, zeros = scales + 256;
      if (before) k.rows.offset += 512;
      k = quantised::by_channel(k, dtype::u8, scales, zeros);
      cache.view.component_count = 1;
      reference::generator random(7);
      cache.for_each_slot([&](int b, int h, int t) {
        std::vector<byte> row(D);
        random_bytes(row.data(), D, random);
        put_bytes(cache.view, k, b, h, t, row);
        auto* const first = reinterpret_cast<byte*>(cache.view.row(k, b, h, t / 32 * 32));
        for (int d = 0; d < D && t % 32 == 0; ++d)
          put_f32(first + scales + 4 * d, random.uniform(0.005, 0.02)),
              put_f32(first + zeros + 4 * d, static_cast<double>(random.below(256)));
      });
      validate(cache.view);
      std::size_t wrong = 0;
      cache.for_each_slot([&](int b, int h, int t) {
        auto const row = bytes_of(cache.view, k, b, h, t);
        auto const* const first = reinterpret_cast<byte const*>(cache.view.row(k, b, h, t / 32 * 32));
        row_reader const x(cache.view, k, b, h);
        for (int d = 0; d < D; ++d)
          wrong += x(t, d) != static_cast<float>((row[static_cast<std::size_t>(d)] - f32_at(first + zeros + 4 * d)) *
                                                 f32_at(first + scales + 4 * d));
      });
      CHECK(wrong == 0);
      auto view = cache.view;
      view.components[0].quant.scale_at = 2044;
      CHECK_THROWS_WITH(validate(view), Catch::Contains("whose slots reach to 2048"));
    });
  }
}

TEST_CASE("scales of a page's channels lie apart from the slots of all heads and components, and in the page") {
  std::vector<byte> memory(4096);
  std::int32_t const table[] = {2, 0}, lengths[] = {7};
  constexpr std::int32_t codes = 4 * 16, scales = 4 * 16, head = codes + 2 * scales;  // P = 4, D = 16
  layer_view<> v;
  v.pages.entries = table, v.pages.sequences = 1, v.pages.heads = 2, v.pages.page_size = 4, v.pages.columns = 2;
  v.lengths = {lengths};
  component k;
  k.rows.base = reinterpret_cast<std::byte*>(memory.data()), k.rows.page_count = 3, k.rows.run_bytes = 16;
  k.rows.slot_stride = 16, k.rows.head_stride = head, k.rows.page_stride = 2 * head;
  auto const with_k = [&](std::int64_t head_stride, std::int64_t page_stride, std::int32_t scale_at,
                          std::int32_t zero_at = quantisation::nowhere) {
    component c = k;
    c.rows.head_stride = head_stride, c.rows.page_stride = page_stride;
    auto view = v.with(quantised::by_channel(c, dtype::i8, scale_at, zero_at));
    return refused(view);
  };
  CHECK(with_k(head, 2 * head, codes, codes + scales).empty());
  CHECK(with_k(codes, 2 * head, 2 * codes).empty());                   // behind the codes of both heads
  CHECK_FALSE(with_k(codes, 2 * head, 2 * codes, 3 * codes).empty());  // head 1's scales on head 0's zero points
  CHECK(with_k(codes, 2 * head, codes).find("whose slots reach to 64") != std::string::npos);  // on head 1's codes
  CHECK_FALSE(with_k(head, 2 * head, codes + scales + 4).empty());  // on the next head's codes
  CHECK_FALSE(with_k(head, 2 * head, codes, codes + scales + 4).empty());
  k.rows.page_count = 1;
  std::int32_t const first[] = {0}, few[] = {4};
  v.pages.entries = first, v.lengths = {few};
  CHECK(with_k(head, 2 * head, codes, codes + scales).empty());
  CHECK_FALSE(with_k(head, 2 * head - 4, codes, codes + scales).empty());  // behind the page
  k.rows.page_count = 3;
  component values = k;
  values.what = role::v, values.type = dtype::u8, values.rows.run_bytes = 4, values.rows.slot_stride = 4;
  values = quantised::by_tensor(values, dtype::u8, 1.0f);
  values.rows.offset = codes + scales;
  v = v.with(values);
  CHECK(with_k(head, 2 * head, codes).empty());
  CHECK(with_k(head, 2 * head, codes, codes + scales).find("all heads and components") != std::string::npos);
}

TEST_CASE("scales that are missing, misplaced or nonsense are refused by name") {
  layouts::cache_shape s = two_sequences();
  s.head_dim = 64, s.type = dtype::opaque, s.state_floats = 8;
  layouts::cache<std::int32_t> cache(layouts::layout::hnd, s), packed(layouts::layout::x_packed, s);
  component const k = cache.view.components[0];
  auto const with_k = [&](component const& c) {
    auto v = cache.view;
    v.components[0] = c;
    return refused(v);
  };
  CHECK(with_k(quantised::by_tensor(k, dtype::i8, 0.5f)).empty());
  component c = k;
  c.type = dtype::i8;
  CHECK(contains(with_k(c), "component k of i8 does not say where its scales lie"));
  c = quantised::by_tensor(k, dtype::i8, 0.5f), c.scope = quant_scope::head;
  CHECK(contains(with_k(c), "does not say where its scales lie"));
  CHECK(contains(with_k(quantised::by_tensor(k, dtype::i8, std::nanf(""))), "give finite numbers"));
  CHECK(contains(with_k(quantised::by_head(k, dtype::i8, nullptr)), "has no scales"));
  CHECK(contains(with_k(quantised::by_head(k, dtype::i8, reinterpret_cast<char const*>(head_scales) + 2)),
                 "or none that are aligned"));
  c = quantised::by_component(k, dtype::i8, quant_scope::token_head);
  CHECK(contains(with_k(c), "add one with role::k_scale"));
  auto v = cache.view;
  v.components[0] = c;
  v.components[3].what = role::k_scale;  // the state: 8 floats
  CHECK(refused(v).empty());
  v.components[0] = quantised::by_component(k, dtype::i8, quant_scope::token_head, dtype::f16);
  CHECK(contains(refused(v), "k_scale has type f32"));
  v.components[0] = quantised::by_component(k, dtype::i8, quant_scope::token_head_group, dtype::f32, 4);
  CHECK(contains(refused(v), "needs 16 scales"));
  v.components[0] = quantised::by_component(k, dtype::i8, quant_scope::token_head_group, dtype::f32, 24);
  CHECK(contains(refused(v), "a group that divides a row"));
  v.components[0].what = role::indexer;
  v.components[1].what = role::k, v.components[1].type = dtype::u8, v.components[1].scope = quant_scope::tensor;
  v.components[0].group = 8;
  CHECK(contains(refused(v), "only k and v have one"));
  CHECK(contains(with_k(quantised::q8_0(k)), "in blocks of 34 bytes"));
  CHECK(
      contains(with_k(quantised::in_blocks(k, dtype::i8, 32, 30, 0, 28, dtype::f32)), "lies in the block for itself"));
  CHECK(
      contains(with_k(quantised::in_blocks(k, dtype::i8, 32, 28, 0, 30, dtype::f32)), "lies in the block for itself"));
  CHECK(contains(with_k(quantised::in_blocks(k, dtype::u8, 32, 24, 0, 24, dtype::f32, 26)), "aligned to its type"));
  CHECK(with_k(quantised::in_blocks(k, dtype::u8, 32, 24, 0, 24, dtype::f32, 28)).empty());
  CHECK(with_k(quantised::decoded_by(k, decode_q4_1, 32, 16)).empty());
  CHECK(contains(with_k(quantised::decoded_by(k, decode_q4_1, 512, 32)), "256 at most"));
  CHECK(contains(with_k(quantised::decoded_by(k, decode_q4_1, 32, 20)), "in blocks of 20 bytes"));
  c = quantised::decoded_by(k, decode_q4_1, 32, 16), c.type = dtype::f16;
  CHECK(contains(with_k(c), "decodes opaque rows of one run"));
  c = quantised::by_tensor(k, dtype::u4, 0.5f), c.quant.nibbles = nibble_order::halves;
  CHECK(contains(with_k(c), "has no blocks"));
  c = quantised::in_blocks(k, dtype::i8, 16, 12, 0, 12, dtype::f32), c.rows.offset += 2;
  CHECK(contains(with_k(c), "not a multiple of its 4-byte elements or scales"));
  auto p = packed.view;  // runs of 16 bytes
  p.components[0] = quantised::in_blocks(p.components[0], dtype::i8, 32, 28, 0, 28, dtype::f32);
  CHECK(contains(refused(p), "runs of 16 bytes in blocks of 32"));
  p.components[0] = quantised::decoded_by(p.components[0], decode_q4_1, 32, 16);
  CHECK(contains(refused(p), "rows of one run"));
}

}  // namespace cache_quantised_test
