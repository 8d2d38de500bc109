// SPDX-License-Identifier: Apache-2.0
// Views of engines' caches reach the addresses that the engines' own code computes, in every component, and evicting
// through them loses and doubles nothing. KVEVICT_ENGINE_ROWS: rows that are moved in each layout (default 3000).
#include <cstdlib>
#include <set>

#include <kvevict/apply/compact.hpp>
#include <kvevict/core/host.hpp>
#include <kvevict/engines/contiguous.hpp>
#include <kvevict/engines/flashinfer.hpp>
#include <kvevict/engines/sglang.hpp>
#include <kvevict/engines/tensorrt_llm.hpp>
#include <kvevict/engines/vllm.hpp>

#include "support/catch.hpp"
#include "support/engine_caches.hpp"
#include "support/engine_structs.hpp"

namespace engines_layouts_test {

using namespace kvevict;
using engine_caches::cache;
using engine_caches::place;
using engine_caches::recipe;

namespace {

// Every formula below is the engine's own index arithmetic, in elements of E bytes.
constexpr std::int64_t D = 16, DV = 8;

/// Two pools of whole rows, or one of both.
void* pool(cache& c, std::size_t bytes) { return c.pools.emplace_back(bytes).data(); }

pages::sizes sizes(cache const& c, dtype type, std::int32_t dim = D) {
  return {c.has.pages, c.has.page_size, c.has.by_head ? 1 : c.has.heads, dim, type, c.has.layers};
}
pages::kv one_pool(cache& c, pages::sizes const& s, char const* shape) {
  return pages::k_and_v(pool(c, 2 * c.has.rows_of(D * size_of(s.type))), s, shape);
}
pages::kv two_pools(cache& c, pages::sizes const& s, char const* shape) {
  void* const k = pool(c, c.has.rows_of(D * size_of(s.type)));
  return pages::k_and_v(k, pool(c, c.has.rows_of(D * size_of(s.type))), s, shape);
}
void by_table(cache& c, pages::sizes const& s, pages::kv const& both) {
  auto const table = c.has.by_head
                         ? pages::by_head(c.has.table.data(), c.has.sequences(), c.has.heads, c.has.columns, s)
                         : pages::dense(c.has.table.data(), c.has.sequences(), c.has.columns, s);
  length_map lengths{c.has.all_lengths.data()};
  if (c.has.by_head) lengths = {c.has.all_lengths.data(), c.has.heads, 1};
  c.view = pages::view(table, lengths, both);
}
/// K and V of D elements of `bytes` at k·bytes and v·bytes of one pool, or of two.
template <class K, class V> void describe(cache& c, std::int32_t bytes, K k, V v, std::size_t v_pool = 0) {
  c.of = {{bytes, D, 0, [=](place const& p) { return k(p) * bytes; }},
          {bytes, D, v_pool, [=](place const& p) { return v(p) * bytes; }}};
}

/// FlashInfer's cache with these strides, in elements, V this far behind K.
void flashinfer_cache(cache& c, std::array<std::int64_t, 3> k, std::array<std::int64_t, 3> v, std::int64_t behind) {
  auto const u = [](std::int64_t x) { return static_cast<std::uint32_t>(x); };
  auto* const base = static_cast<f16*>(pool(c, 4 * c.has.rows_of(D * 2)));
  auto const n = static_cast<std::size_t>(c.has.sequences());
  std::vector<std::int32_t> last(n);
  for (std::size_t b = 0; b < n; ++b)
    if (c.has.lengths[b] != 0) last[b] = (c.has.lengths[b] - 1) % c.has.page_size + 1;
  c.has.all_lengths = last;
  engine_structs::paged_kv<f16> const kv{{u(c.has.page_size)},
                                         u(c.has.heads),
                                         D,
                                         u(c.has.sequences()),
                                         u(k[0]),
                                         u(k[1]),
                                         u(k[2]),
                                         u(v[0]),
                                         u(v[1]),
                                         u(v[2]),
                                         base,
                                         base + behind,
                                         c.has.indices.data(),
                                         c.has.indptr.data(),
                                         c.has.all_lengths.data()};
  c.view = engines::flashinfer::view(kv, dtype::f16, c.has.pages);
  describe(
      c, 2, [=](place const& p) { return p.page * k[0] + p.head * k[2] + p.slot * k[1] + p.e; },
      [=](place const& p) { return behind + p.page * v[0] + p.head * v[2] + p.slot * v[1] + p.e; });
}

/// [B, W = 1, 2, M], the block of V made of K's.
template <class F> std::vector<std::int32_t> two_rows(cache const& c, F of_values) {
  std::vector<std::int32_t> out;
  std::int32_t const M = c.has.columns;
  for (std::int32_t b = 0; b < c.has.sequences(); ++b)
    for (int v = 0; v < 2; ++v)
      for (std::int32_t i = 0; i < M; ++i) {
        std::int32_t const k = c.has.table[static_cast<std::size_t>(b * M + i)];
        out.push_back(v == 1 && k >= 0 ? of_values(k) : k);
      }
  return out;
}
/// Blocks [H, T, D] of one pool; getBlockPtr and getKVLocalIdx.
template <class F, class View> void tensorrt_llm_cache(cache& c, F of_values, View view) {
  std::int32_t const T = c.has.page_size;
  std::int64_t const page = std::int64_t{c.has.heads} * T * D;
  c.has.indices = two_rows(c, of_values);
  engine_structs::block_array const kv{c.has.columns,
                                       T,
                                       static_cast<std::int32_t>(page * 2),
                                       0,
                                       0,
                                       pool(c, c.has.rows_of(D * 2)),
                                       reinterpret_cast<engine_structs::cache_index const*>(c.has.indices.data())};
  c.view = view(kv, c);
  auto const local = [=](place const& p) { return p.head * T * D + (p.slot & (T - 1)) * D + p.e; };
  describe(
      c, 2, [=](place const& p) { return p.page * page + local(p); },
      [=](place const& p) { return of_values(static_cast<std::int32_t>(p.page)) * page + local(p); });
}

using engines::vllm::kv_cache_layout;

/// vLLM's logical [L,B,H,N,C] with compute_layout_strides: the innermost physical axis first.
std::array<std::int64_t, 5> vllm_strides(std::array<int, 5> order, std::array<std::int64_t, 5> extent) {
  std::array<std::int64_t, 5> out{};
  std::int64_t stride = 1;
  for (int i = 4; i >= 0; --i) {
    auto const axis = static_cast<std::size_t>(order[static_cast<std::size_t>(i)]);
    out[axis] = stride, stride *= extent[axis];
  }
  return out;
}
recipe vllm(char const* name, kv_cache_layout layout, std::array<int, 5> order, bool scales) {
  return {.name = name, .layers = 3, .build = [=](cache& c) {
            // state_content_bytes: K's elements, their scale, V's, theirs; scales are bytes of the row
            std::int64_t const E = scales ? 1 : 2, K = D * E + (scales ? 4 : 0), V = DV * E + (scales ? 4 : 0);
            engines::vllm::kv_cache kv{.tensor = pool(c, c.has.rows_of(K + V)), .layout = layout};
            kv.shape = sizes(c, scales ? dtype::i8 : dtype::bf16), kv.shape.v_head_dim = DV;
            kv.quant = engines::vllm::kv_quant::per_token_head;
            c.view = engines::vllm::stack(kv, c.has.table.data(), c.has.sequences(), c.has.columns,
                                          c.has.all_lengths.data());
            auto const s = vllm_strides(order, {c.has.layers, c.has.pages, c.has.heads, c.has.page_size, K + V});
            auto const row = [=](std::int64_t at) {
              return [=](place const& p) {
                return p.layer * s[0] + p.page * s[1] + p.head * s[2] + p.slot * s[3] + at + p.e * E;
              };
            };
            auto const e = static_cast<std::int32_t>(E);
            c.of = {{e, static_cast<std::int32_t>(K / E), 0, row(0)}, {e, static_cast<std::int32_t>(V / E), 0, row(K)}};
          }};
}

std::vector<recipe> recipes() {
  std::vector<recipe> out;
  auto const add = [&](recipe r) { out.push_back(std::move(r)); };

  // vLLM
  add(vllm("vLLM LBHNC", kv_cache_layout::LBHNC, {0, 1, 2, 3, 4}, false));
  add(vllm("vLLM LBNHC", kv_cache_layout::LBNHC, {0, 1, 3, 2, 4}, false));
  add(vllm("vLLM LHBNC", kv_cache_layout::LHBNC, {0, 2, 1, 3, 4}, false));
  add(vllm("vLLM BLHNC", kv_cache_layout::BLHNC, {1, 0, 2, 3, 4}, false));
  add(vllm("vLLM BLNHC", kv_cache_layout::BLNHC, {1, 0, 3, 2, 4}, false));
  add(vllm("vLLM BHLNC", kv_cache_layout::BHLNC, {1, 2, 0, 3, 4}, false));
  add(vllm("vLLM LBHNC, scales per token and head", kv_cache_layout::LBHNC, {0, 1, 2, 3, 4}, true));
  add(vllm("vLLM BLNHC, scales per token and head", kv_cache_layout::BLNHC, {1, 0, 3, 2, 4}, true));
  add({.name = "vLLM before 0.32, NHD (2,nb,P,H,D)", .build = [](cache& c) {
         auto const s = sizes(c, dtype::bf16);
         std::int64_t const H = c.has.heads, P = c.has.page_size, nb = c.has.pages;
         by_table(c, s, one_pool(c, s, "2BNHD"));
         auto const at = [=](std::int64_t kv) {
           return [=](place const& p) { return (((kv * nb + p.page) * P + p.slot) * H + p.head) * D + p.e; };
         };
         describe(c, 2, at(0), at(1));
       }});
  add({.name = "vLLM before 0.32, HND (nb,2,H,P,D)", .build = [](cache& c) {
         auto const s = sizes(c, dtype::bf16);
         std::int64_t const H = c.has.heads, P = c.has.page_size;
         by_table(c, s, one_pool(c, s, "B2HND"));
         auto const at = [=](std::int64_t kv) {
           return [=](place const& p) { return (((p.page * 2 + kv) * H + p.head) * P + p.slot) * D + p.e; };
         };
         describe(c, 2, at(0), at(1));
       }});
  add({.name = "vLLM paged_attention_v1, K [nb,H,D/x,P,x], V [nb,H,D,P]", .build = [](cache& c) {
         auto const s = sizes(c, dtype::f16);
         std::int64_t const H = c.has.heads, P = c.has.page_size, x = 8;
         void *const k = pool(c, c.has.rows_of(D * 2)), *const v = pool(c, c.has.rows_of(D * 2));
         by_table(c, s, {pages::x_packed(role::k, k, s), pages::transposed(role::v, v, s)});
         describe(
             c, 2,
             [=](place const& p) {
               return p.page * H * D * P + p.head * D * P + p.e / x * P * x + p.slot * x + p.e % x;
             },
             [=](place const& p) { return p.page * H * D * P + p.head * D * P + p.e * P + p.slot; }, 1);
       }});
  add({.name = "vLLM fp8_ds_mla, opaque rows of 656 bytes", .together = true, .build = [](cache& c) {
         pages::sizes s = sizes(c, dtype::opaque, 656);
         std::int64_t const P = c.has.page_size;
         s.heads = 1;
         auto table = pages::dense(c.has.table.data(), c.has.sequences(), c.has.columns, s, c.has.heads);
         layer_view<> v;
         v.pages = table, v.lengths = {c.has.all_lengths.data()};
         c.view = v.with(pages::tensor(role::k, pool(c, c.has.rows_of(656)), s, "BND"));
         c.of = {{1, 656, 0, [=](place const& p) { return (p.page * P + p.slot) * 656 + p.e; }}};
       }});
  add({.name = "DeepSeek indexer keys, scales at the end of a page", .together = true, .build = [](cache& c) {
         pages::sizes key = sizes(c, dtype::opaque, 128), scale = sizes(c, dtype::f32, 1);
         std::int64_t const P = c.has.page_size;
         key.heads = scale.heads = 1;
         key.page_room = P * 132, scale.page_room = P * 33;
         layer_view<> v;
         v.pages = pages::dense(c.has.table.data(), c.has.sequences(), c.has.columns, key, c.has.heads);
         v.lengths = {c.has.all_lengths.data()};
         auto* const base = static_cast<std::byte*>(pool(c, c.has.rows_of(132)));
         c.view = v.with(pages::tensor(role::k, base, key, "BND"))
                      .with(pages::tensor(role::k_scale, base + P * 128, scale, "BND"));
         c.of = {{1, 128, 0, [=](place const& p) { return p.page * P * 132 + p.slot * 128 + p.e; }},
                 {4, 1, 0, [=](place const& p) { return p.page * P * 132 + P * 128 + p.slot * 4; }}};
       }});

  // FlashInfer: (page, slot, head) strides
  constexpr std::int64_t H = 3, P = 4, page = H * P * D;
  add({.name = "FlashInfer NHD, two tensors", .build = [](cache& c) {
         flashinfer_cache(c, {page, H * D, D}, {page, H * D, D}, c.has.pages * page);
       }});
  add({.name = "FlashInfer HND, two tensors", .build = [](cache& c) {
         flashinfer_cache(c, {page, D, P * D}, {page, D, P * D}, c.has.pages * page);
       }});
  add({.name = "FlashInfer NHD [pages,2,P,H,D]", .build = [](cache& c) {
         flashinfer_cache(c, {2 * page, H * D, D}, {2 * page, H * D, D}, page);
       }});
  add({.name = "FlashInfer, other strides for K and V", .build = [](cache& c) {
         flashinfer_cache(c, {page + 32, H * D, D}, {page + 16, D, P * D}, c.has.pages * (page + 32));
       }});

  // TensorRT-LLM: blocks [2, H, T, D] of a pool, the index of V is K's plus one
  add({.name = "TensorRT-LLM KVBlockArray", .ids_a_page = 2, .build = [](cache& c) {
         tensorrt_llm_cache(
             c, [](std::int32_t k) { return k + 1; },
             [](auto const& kv, cache& of) {
               pages::sizes const s{of.has.pages, 0, of.has.heads, D, dtype::f16};
               auto const v = engines::tensorrt_llm::view(kv, s, of.has.sequences(), of.has.all_lengths.data());
               engines::tensorrt_llm::expect_values_behind_keys(v);
               return v;
             });
       }});
  add({.name = "TensorRT-LLM KVBlockArray, V anywhere in the pool", .ids_a_page = 2, .build = [](cache& c) {
         auto const last = static_cast<std::int32_t>(c.has.pages) - 1;  // V's are odd
         tensorrt_llm_cache(
             c, [=](std::int32_t k) { return last - k; },
             [](auto const& kv, cache& of) {
               pages::sizes const s{of.has.pages, 0, of.has.heads, D, dtype::f16};
               return engines::tensorrt_llm::view_by_rows(kv, s, of.has.sequences(), of.has.all_lengths.data());
             });
       }});
  // K of bytes, V of halves of them with a scale for every 16, each in a pool of its own; scales in a third
  add({.name = "TensorRT-LLM MixedKVBlockArray", .build = [](cache& c) {
         std::int64_t const last = c.has.pages - 1, T = c.has.page_size;
         c.has.indices = two_rows(c, [=](std::int32_t k) { return static_cast<std::int32_t>(last) - k; });
         void *const k = pool(c, c.has.rows_of(D)), *const v = pool(c, c.has.rows_of(D / 2)),
                     *const scales = pool(c, c.has.rows_of(D / 16));
         engine_structs::mixed_block_array const kv{
             c.has.columns,
             static_cast<std::int32_t>(T),
             static_cast<std::int32_t>(H * T * D),
             static_cast<std::int32_t>(H * T * D / 2),
             k,
             v,
             reinterpret_cast<engine_structs::cache_index const*>(c.has.indices.data())};
         pages::sizes const of_k{c.has.pages, 0, c.has.heads, D, dtype::fp8_e4m3},
             of_v{c.has.pages, 0, c.has.heads, D / 2, dtype::opaque};
         auto const view =
             engines::tensorrt_llm::mixed_view(kv, of_k, of_v, c.has.sequences(), c.has.all_lengths.data(), 0.5f);
         c.view = view.with(
             pages::hnd(role::v_scale, scales, {c.has.pages, c.has.page_size, c.has.heads, D / 16, dtype::opaque})
                 .with_table(view.pages.columns));
         auto const rows = [=](bool values, std::int64_t width) {
           return [=](place const& p) {
             std::int64_t const block = values ? last - p.page : p.page;
             return block * H * T * width + p.head * T * width + p.slot * width + p.e;
           };
         };
         c.of = {{1, D, 0, rows(false, D)}, {1, D / 2, 1, rows(true, D / 2)}, {1, D / 16, 2, rows(true, D / 16)}};
       }});

  // SGLang
  add({.name = "SGLang token pool", .page_size = 1, .build = [](cache& c) {
         auto const s = sizes(c, dtype::bf16);
         void *const k = pool(c, c.has.rows_of(D * 2)), *const v = pool(c, c.has.rows_of(D * 2));
         c.view = pages::view(pages::csr(c.has.indices.data(), c.has.indptr.data(), c.has.sequences(), s),
                              {c.has.all_lengths.data()}, engines::sglang::token_pool(k, v, s));
         auto const at = [](place const& p) { return (p.page * H + p.head) * D + p.e; };
         describe(c, 2, at, at, 1);
       }});
  add({.name = "SGLang HND", .build = [](cache& c) {
         auto const s = sizes(c, dtype::bf16);
         void *const k = pool(c, c.has.rows_of(D * 2)), *const v = pool(c, c.has.rows_of(D * 2));
         by_table(c, s, engines::sglang::hnd(k, v, s));
         auto const at = [](place const& p) { return ((p.page * H + p.head) * P + p.slot) * D + p.e; };
         describe(c, 2, at, at, 1);
       }});
  add({.name = "SGLang vectorized_5d, pages of x", .page_size = 8, .build = [](cache& c) {
         auto const s = sizes(c, dtype::bf16);
         void *const k = pool(c, c.has.rows_of(D * 2)), *const v = pool(c, c.has.rows_of(D * 2));
         by_table(c, s, engines::sglang::vectorized_5d(k, v, s));
         constexpr std::int64_t x = 8, N = 8;
         describe(
             c, 2,
             [](place const& p) { return (((p.page * H + p.head) * (D / x) + p.e / x) * N + p.slot) * x + p.e % x; },
             [](place const& p) { return (((p.page * H + p.head) * (N / x) + p.slot / x) * D + p.e) * x + p.slot % x; },
             1);
       }});
  add({.name = "SGLang MLA", .page_size = 1, .together = true, .build = [](cache& c) {
         pages::sizes s = sizes(c, dtype::bf16, 24);
         s.heads = 1, s.v_head_dim = 16;
         auto table = pages::dense(c.has.table.data(), c.has.sequences(), c.has.columns, s, c.has.heads);
         c.view = pages::view(table, {c.has.all_lengths.data()}, engines::sglang::mla(pool(c, c.has.rows_of(48)), s));
         auto const at = [](place const& p) { return (p.page * 24 + p.e) * 2; };
         c.of = {{2, 24, 0, at}, {2, 16, 0, at, true}};
       }});

  // Contiguous
  add({.name = "transformers and ONNX Runtime [B,H,S,D]", .identity = true, .build = [](cache& c) {
         auto const s = sizes(c, dtype::f16);
         std::int64_t const S = c.has.page_size;
         void *const k = pool(c, c.has.rows_of(D * 2)), *const v = pool(c, c.has.rows_of(D * 2));
         c.view = engines::contiguous::view(k, v, s, c.has.all_lengths.data());
         auto const at = [=](place const& p) { return ((p.page * H + p.head) * S + p.slot) * D + p.e; };
         describe(c, 2, at, at, 1);
       }});
  add({.name = "[B,H,S,D], a length per head", .by_head = true, .identity = true, .build = [](cache& c) {
         pages::sizes const s{c.has.pages, c.has.page_size, c.has.heads, D, dtype::f32};
         std::int64_t const S = c.has.page_size;
         void *const k = pool(c, H * c.has.rows_of(D * 4)), *const v = pool(c, H * c.has.rows_of(D * 4));
         c.view = engines::contiguous::view_by_head(k, v, s, c.has.all_lengths.data());
         auto const at = [=](place const& p) { return ((p.page * H + p.head) * S + p.slot) * D + p.e; };
         describe(c, 4, at, at, 1);
       }});
  add({.name = "[B,S,H,D], transposed by strides", .identity = true, .build = [](cache& c) {
         auto const s = sizes(c, dtype::f32);
         std::int64_t const S = c.has.page_size;
         void *const k = pool(c, c.has.rows_of(D * 4)), *const v = pool(c, c.has.rows_of(D * 4));
         c.view = engines::contiguous::view(k, v, s, c.has.all_lengths.data(), {S * H * D, D, H * D});
         auto const at = [=](place const& p) { return ((p.page * S + p.slot) * H + p.head) * D + p.e; };
         describe(c, 4, at, at, 1);
       }});

  // The table of engines/README.md: one line of pages.hpp each
  add({.name = "LightLLM [tokens,2H,D]", .page_size = 1, .build = [](cache& c) {
         auto const s = sizes(c, dtype::f16);
         by_table(c, s, one_pool(c, s, "B2HD"));
         describe(
             c, 2, [](place const& p) { return (p.page * 2 * H + p.head) * D + p.e; },
             [](place const& p) { return (p.page * 2 * H + H + p.head) * D + p.e; });
       }});
  add({.name = "TurboMind, u8 with f16 scales and zero points in the page", .build = [](cache& c) {
         pages::sizes const data = sizes(c, dtype::opaque), param = sizes(c, dtype::f16, 2);
         std::int64_t const head_data = P * D, head_param = P * 4, layer = H * 2 * (head_data + head_param);
         auto* const base = static_cast<std::byte*>(pool(c, static_cast<std::size_t>(c.has.pages * layer)));
         for (std::int32_t const id : c.has.indices) c.addresses.push_back(base + id * layer);
         auto v = pages::view(pages::csr<std::byte*>(c.addresses.data(), c.has.indptr.data(), c.has.sequences(), data),
                              {c.has.all_lengths.data()}, pages::k_and_v(nullptr, data, "H2ND"));
         pages::kv params{pages::tensor(role::k_scale, nullptr, param, "H2ND"),
                          pages::tensor(role::v_scale, nullptr, param, "H2ND")};
         params.k.rows.offset += H * 2 * head_data, params.v.rows.offset += H * 2 * head_data;
         c.view = v.with(params.k).with(params.v);
         // block.h: head_data(h) + token_data(t); head_param(h) + token_param(t)
         auto const data_at = [=](std::int64_t kv) {
           return [=](place const& p) { return p.page * layer + (p.head * 2 + kv) * head_data + p.slot * D + p.e; };
         };
         auto const param_at = [=](std::int64_t kv) {
           return [=](place const& p) {
             return p.page * layer + H * 2 * head_data + (p.head * 2 + kv) * head_param + p.slot * 4 + p.e * 2;
           };
         };
         c.of = {{1, D, 0, data_at(0)}, {1, D, 0, data_at(1)}, {2, 2, 0, param_at(0)}, {2, 2, 0, param_at(1)}};
       }});
  add({.name = "RTP-LLM [blocks,2,H,P,D]", .build = [](cache& c) {
         auto const s = sizes(c, dtype::f16);
         by_table(c, s, one_pool(c, s, "B2HND"));
         describe(
             c, 2, [](place const& p) { return p.page * 2 * page + p.head * P * D + p.slot * D + p.e; },
             [](place const& p) { return p.page * 2 * page + page + p.head * P * D + p.slot * D + p.e; });
       }});
  add({.name = "xLLM, ScaleLLM, ONNX Runtime GenAI [blocks,P,H,D]", .build = [](cache& c) {
         auto const s = sizes(c, dtype::bf16);
         by_table(c, s, two_pools(c, s, "BNHD"));
         auto const at = [](place const& p) { return ((p.page * P + p.slot) * H + p.head) * D + p.e; };
         describe(c, 2, at, at, 1);
       }});
  add({.name = "xLLM Ascend NZ [blocks,H·D/16,P,16]", .build = [](cache& c) {
         pages::sizes s = sizes(c, dtype::bf16, 32);
         s.pack = 16;
         void *const k = pool(c, c.has.rows_of(64)), *const v = pool(c, c.has.rows_of(64));
         by_table(c, s, {pages::x_packed(role::k, k, s), pages::x_packed(role::v, v, s)});
         auto const at = [](place const& p) {
           return (((p.page * (H * 32 / 16) + (p.head * 32 + p.e) / 16) * P + p.slot) * 16 + p.e % 16) * 2;
         };
         c.of = {{2, 32, 0, at}, {2, 32, 1, at}};
       }});
  add({.name = "DeepSpeed-FastGen [blocks,P,2,H,D]", .build = [](cache& c) {
         auto const s = sizes(c, dtype::f16);
         by_table(c, s, one_pool(c, s, "BN2HD"));
         describe(
             c, 2, [](place const& p) { return (((p.page * P + p.slot) * 2) * H + p.head) * D + p.e; },
             [](place const& p) { return (((p.page * P + p.slot) * 2 + 1) * H + p.head) * D + p.e; });
       }});
  add({.name = "llama.cpp with flash attention [cells,H,D]", .page_size = 1, .build = [](cache& c) {
         auto const s = sizes(c, dtype::f16);
         void *const k = pool(c, c.has.rows_of(D * 2)), *const v = pool(c, c.has.rows_of(D * 2));
         by_table(c, s, {pages::cells(role::k, k, s), pages::cells(role::v, v, s)});
         auto const at = [](place const& p) { return p.page * H * D + p.head * D + p.e; };
         describe(c, 2, at, at, 1);
       }});
  add({.name = "llama.cpp without, V [H·D,cells]", .page_size = 1, .build = [](cache& c) {
         auto const s = sizes(c, dtype::f16);
         std::int64_t const cells = c.has.pages;
         void *const k = pool(c, c.has.rows_of(D * 2)), *const v = pool(c, c.has.rows_of(D * 2));
         by_table(c, s, {pages::cells(role::k, k, s), pages::transposed_cells(role::v, v, s)});
         describe(
             c, 2, [](place const& p) { return p.page * H * D + p.head * D + p.e; },
             [=](place const& p) { return (p.head * D + p.e) * cells + p.page; }, 1);
       }});
  add({.name = "KV-Compress, K [blocks,D/x,P,x], V [blocks,D,P] of one head", .by_head = true, .build = [](cache& c) {
         auto const s = sizes(c, dtype::f16);
         void *const k = pool(c, c.has.rows_of(D * 2)), *const v = pool(c, c.has.rows_of(D * 2));
         by_table(c, s, {pages::x_packed(role::k, k, s), pages::transposed(role::v, v, s)});
         describe(
             c, 2, [](place const& p) { return ((p.page * (D / 8) + p.e / 8) * P + p.slot) * 8 + p.e % 8; },
             [](place const& p) { return (p.page * D + p.e) * P + p.slot; }, 1);
       }});
  add({.name = "blocks of one head [blocks,P,D]", .by_head = true, .build = [](cache& c) {
         auto const s = sizes(c, dtype::f32);
         by_table(c, s, two_pools(c, s, "BND"));
         auto const at = [](place const& p) { return (p.page * P + p.slot) * D + p.e; };
         describe(c, 4, at, at, 1);
       }});
  return out;
}

/// Bytes of element e of a row.
template <class View>
std::byte* through(View const& v, component const& c, std::int32_t b, std::int32_t h, std::int32_t t, std::int64_t e,
                   std::int32_t bytes) {
  return v.row(c, b, h, t) + c.rows.unit_offset(static_cast<std::int32_t>(e), bytes);
}

keep_set random_set(cache const& c, reference::generator& random) {
  keep_set keep;
  std::int32_t const B = c.has.layers * c.has.sequences();
  keep.sequences = B, keep.heads = c.has.heads, keep.row_begin = {0};
  std::vector<std::int32_t> of_first;
  for (std::int32_t b = 0; b < B; ++b) {
    std::int32_t const n = c.has.lengths[static_cast<std::size_t>(b % c.has.sequences())];
    auto count = static_cast<std::size_t>(n) - random.below(static_cast<std::size_t>(n) + 1);
    for (std::int32_t h = 0; h < c.has.heads; ++h) {
      if (c.has.by_head && h > 0) count = random.below(static_cast<std::size_t>(n) + 1);
      std::vector<std::int32_t> all;
      for (std::int32_t t = 0; t < n; ++t) all.push_back(t);
      for (std::size_t i = all.size(); i > 1; --i) std::swap(all[i - 1], all[random.below(i)]);
      all.resize(count);
      std::sort(all.begin(), all.end());
      if (c.together && h > 0) all = of_first;
      of_first = all;
      keep.tokens.insert(keep.tokens.end(), all.begin(), all.end());
      keep.row_begin.push_back(static_cast<std::int64_t>(keep.tokens.size()));
      keep.lengths.push_back(n);
    }
  }
  return keep;
}

/// Evicts once at random; returns the rows moved, −1 when a token is lost, doubled or damaged, or another byte changed.
std::int64_t evict(cache& c, host& ctx, reference::generator& random) {
  std::uint64_t garbage = random.bits();
  for (auto& p : c.pools)
    for (std::byte& x : p) x = static_cast<std::byte>((garbage = garbage * 6364136223846793005u + 1) >> 56);
  for (std::size_t k = 0; k < c.of.size(); ++k) c.for_each_slot([&](int b, int h, int t) { c.put(k, b, h, t); });
  auto const before = c.pools;
  keep_set const keep = random_set(c, random);
  bool const stable = random.below(2) == 0;
  std::int64_t moved = 0;
  std::vector<std::int32_t> lengths;
  std::visit(
      [&](auto const& v) {
        auto const done = compact(ctx, v, keep, stable ? compaction::stable : compaction::fill_holes);
        moved = done.moves().moves();
        lengths.assign(done.lengths().begin(), done.lengths().end());
      },
      c.view);
  auto after = c.pools;
  for (std::int64_t r = 0; r < keep.rows(); ++r) {
    auto const b = static_cast<std::int32_t>(r / keep.heads), h = static_cast<std::int32_t>(r % keep.heads);
    auto const kept = keep.row(r);
    if (lengths[static_cast<std::size_t>(r)] != kept.size) return -1;
    std::set<std::int32_t> missing(kept.begin(), kept.end());
    for (std::int32_t t = 0; t < kept.size; ++t) {
      std::int32_t token = kept[t];
      if (!stable) {
        token = -1;
        for (std::int32_t const m : missing)
          if (c.holds(0, b, h, t, m)) token = m;
      }
      if (token < 0 || missing.erase(token) == 0) return -1;
      for (std::size_t k = 0; k < c.of.size(); ++k) {
        if (!c.holds(k, b, h, t, token)) return -1;
        for (std::int32_t e = 0; e < c.of[k].width; ++e) {  // the rest must be as it was
          std::byte* const at = c.at(k, b, h, t, e);
          auto const p = c.of[k].pool;
          std::memcpy(after[p].data() + (at - c.pools[p].data()), before[p].data() + (at - c.pools[p].data()),
                      static_cast<std::size_t>(c.of[k].bytes));
        }
      }
    }
  }
  return after == before ? moved : -1;
}

std::int64_t rows_wanted() {
  char const* const text = std::getenv("KVEVICT_ENGINE_ROWS");
  return text == nullptr ? 3000 : std::atoll(text);
}

}  // namespace

TEST_CASE("engines: views reach the addresses that the engines' code computes") {
  std::set<std::string> names;
  std::int64_t elements = 0;
  for (recipe const& r : recipes()) {
    auto const c = r.make({9, 0, 17, 4}, 5);
    CAPTURE(c->name);
    names.insert(c->name);
    std::visit(
        [&](auto const& v) {
          REQUIRE(v.component_count == static_cast<std::int32_t>(c->of.size()));
          CHECK_NOTHROW(validate(v));
          for (std::size_t k = 0; k < c->of.size(); ++k) {
            component const& part = v.components[k];
            REQUIRE(part.rows.row_bytes() == c->of[k].bytes * c->of[k].width);
            std::int64_t wrong = 0;
            c->for_each_slot([&](int b, int h, int t) {
              for (std::int32_t e = 0; e < c->of[k].width; ++e, ++elements)
                wrong += through(v, part, b, h, t, e, c->of[k].bytes) != c->at(k, b, h, t, e);
            });
            CHECK(wrong == 0);
          }
        },
        c->view);
  }
  CHECK(names.size() == recipes().size());
  CHECK(names.size() >= 24);
  CHECK(elements > 100000);
}

TEST_CASE("engines: evicting in every layout loses, doubles and damages nothing") {
  host ctx;
  std::int64_t const wanted = rows_wanted();
  for (recipe const& r : recipes()) {
    CAPTURE(r.name);
    reference::generator random(11);
    std::int64_t rows = 0, rounds = 0;
    while (rows < wanted) {
      std::vector<std::int32_t> lengths;
      for (int b = 0; b < 4; ++b) lengths.push_back(static_cast<std::int32_t>(random.below(33)));
      auto const c = r.make(lengths, random.bits());
      std::int64_t const moved = evict(*c, ctx, random);
      REQUIRE(moved >= 0);
      rows += moved, ++rounds;
    }
    if (wanted >= 1000000) WARN(r.name << ": " << rows << " rows in " << rounds << " evictions");
  }
}

}  // namespace engines_layouts_test
