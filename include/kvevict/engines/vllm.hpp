// SPDX-License-Identifier: Apache-2.0
// vLLM 0.32 and 0.33: v1/kv_cache_layout.py (KVCacheLayout) and v1/kv_cache_interface.py (KVCacheTensor,
// compute_layout_strides): logical [L,B,H,N,C], where C is a row's bytes, K then V.
//
//   engines::vllm::kv_cache kv{.tensor = tensor.data_ptr(), .layout = engines::vllm::kv_cache_layout::LBNHC};
//   kv.shape = {.pages = num_blocks, .page_size = block_size, .heads = num_kv_heads, .head_dim = head_size,
//               .type = dtype::bf16, .layers = num_layers};
//   auto const cache = engines::vllm::view(kv, layer, block_table, num_reqs, max_num_blocks, seq_lens);
//   auto const done = compact(ctx, cache, plan(ctx, policy, prompt(cache, queries), {.tokens_per_head = tokens}));
#pragma once

#include <algorithm>
#include <cstdint>

#include <kvevict/engines/pages.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace engines::vllm {

/// From the outermost axis to the innermost. LBNHC is what was NHD, LBHNC what was HND.
enum class kv_cache_layout : std::uint8_t { LBHNC, LBNHC, LHBNC, BLHNC, BLNHC, BHLNC };

/// Of caches of codes (shape.type is fp8_e4m3, i8, …): kv_cache_dtype "fp8" has a scale for K and one for V of each
/// layer; int8_per_token_head and fp8_per_token_head have an f32 behind K's elements of a row, and one behind V's.
enum class kv_quant : std::uint8_t { per_tensor, per_token_head };

struct kv_cache {
  void* tensor = nullptr;
  pages::sizes shape{};  // layers: those of the tensor
  kv_cache_layout layout = kv_cache_layout::LBHNC;
  kv_quant quant = kv_quant::per_tensor;  // read where shape.type is a code
  // what turned the cached keys: vLLM's models turn them before they are stored; none: of a layer without positions
  rotation keys = rotation::rope;
  float k_scale = 1, v_scale = 1;         // per_tensor
  // of KVCacheTensor, in bytes, where they are not those of a dense tensor (block_stride is that of all groups together
  // where blocks are outermost); 0: dense
  std::int64_t layer_stride = 0, block_stride = 0, offset = 0;
};

constexpr char const* shape_of(kv_cache_layout l) {
  constexpr char const* shapes[] = {"LBHN2D", "LBNH2D", "LHBN2D", "BLHN2D", "BLNH2D", "BHLN2D"};
  return shapes[static_cast<int>(l)];
}

/// K and V of all layers. Rows of other quantisations (nvfp4, turboquant, int4 with its transform) are opaque: describe
/// their slots by pages::tensor.
inline layer_view<> with_components(layer_view<> out, kv_cache const& kv) {
  KVEVICT_EXPECTS(kv.layout <= kv_cache_layout::BHLNC && kv.quant <= kv_quant::per_token_head,
                  "vllm::view: a kv_cache_layout or kv_quant out of range; give one of the enumerators");
  KVEVICT_EXPECTS(kv.layer_stride >= 0 && kv.layer_stride <= farthest_element / std::max(kv.shape.layers, 1) &&
                      kv.block_stride >= 0 && kv.offset >= 0 && kv.offset <= farthest_element,
                  "vllm::view: layer_stride ", kv.layer_stride, ", block_stride ", kv.block_stride, " and offset ",
                  kv.offset,
                  " are bytes, none below 0 or beyond 64 bits; give those of KVCacheTensor, or 0 where the tensor is "
                  "dense");
  bool const scales_in_rows = is_code(kv.shape.type) && kv.quant == kv_quant::per_token_head;
  pages::sizes row = kv.shape;
  if (scales_in_rows) {
    std::int32_t const k = row.head_dim, v = row.v_head_dim > 0 ? row.v_head_dim : k;
    KVEVICT_EXPECTS(!is_half_byte(row.type) && k % 4 == 0 && v % 4 == 0 && std::max(k, v) <= farthest_row - 4,
                    "vllm::view: rows of ", k, " and ", v, " elements of ", name_of(row.type),
                    " have no f32 scale at a multiple of 4 bytes; describe their slots by pages::tensor, as opaque");
    row.head_dim = k + 4, row.v_head_dim = v + 4;
  }
  pages::kv both = pages::k_and_v(kv.tensor, row, shape_of(kv.layout));
  for (component* const c : {&both.k, &both.v}) {
    if (kv.block_stride > 0) c->rows.page_stride = kv.block_stride;
    if (kv.layer_stride > 0) c->rows.layer_stride = kv.layer_stride;
    c->rows.offset += kv.offset;
    if (scales_in_rows)
      *c = quantised::scale_behind(*c, row.type);
    else if (is_code(row.type))
      *c = quantised::by_tensor(*c, row.type, c->what == role::k ? kv.k_scale : kv.v_scale);
  }
  return out.with(both.k.turned(kv.keys)).with(both.v);
}

/// One layer: block_table (num_reqs, max_num_blocks), seq_lens (num_reqs).
inline layer_view<> view(kv_cache const& kv, std::int32_t layer, std::int32_t const* block_table, std::int32_t num_reqs,
                         std::int32_t max_num_blocks, std::int32_t const* seq_lens) {
  KVEVICT_EXPECTS(layer >= 0 && layer < kv.shape.layers, "vllm::view: there is no layer ", layer, " among the ",
                  kv.shape.layers, " of this tensor; count from its first one");
  layer_view<> out;
  out.pages = pages::dense(block_table, num_reqs, max_num_blocks, kv.shape);
  out.lengths = {seq_lens};
  out = with_components(out, kv);
  for (std::int32_t i = 0; i < out.component_count; ++i) {
    row_map& m = out.components[static_cast<std::size_t>(i)].rows;
    m.offset += layer * m.layer_stride, m.layer_stride = 0;
  }
  return out;
}

/// All layers of the tensor as a stack, by one block table: seq_lens (layers·num_reqs).
inline layer_view<> stack(kv_cache const& kv, std::int32_t const* block_table, std::int32_t num_reqs,
                          std::int32_t max_num_blocks, std::int32_t const* seq_lens) {
  KVEVICT_EXPECTS(num_reqs >= 0 && num_reqs <= farthest_row / std::max(kv.shape.layers, 1), "vllm::stack: ", num_reqs,
                  " requests in ", kv.shape.layers, " layers; give the rows of block_table");
  layer_view<> out;
  out.pages = pages::dense(block_table, num_reqs, max_num_blocks, kv.shape);
  out.pages.layers = kv.shape.layers, out.pages.sequences = kv.shape.layers * num_reqs;
  out.lengths = {seq_lens};
  return with_components(out, kv);
}

}  // namespace engines::vllm
}  // namespace KVEVICT_ABI
}  // namespace kvevict
