// SPDX-License-Identifier: Apache-2.0
// vLLM 0.32 and 0.33: v1/kv_cache_layout.py (KVCacheLayout) and v1/kv_cache_interface.py (KVCacheTensor,
// compute_layout_strides): logical [L,B,H,N,C], where C is a row's bytes, K then V.
//
//   engines::vllm::kv_cache kv{.tensor = tensor.data_ptr(), .layout = engines::vllm::kv_cache_layout::LBNHC};
//   kv.shape = {.pages = num_blocks, .page_size = block_size, .heads = num_kv_heads, .head_dim = head_size,
//               .type = dtype::bf16, .layers = num_layers};
//   auto const cache = engines::vllm::view(kv, layer, block_table, num_reqs, max_num_blocks_per_req, seq_lens);
#pragma once

#include <cstdint>

#include <kvevict/engines/pages.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace engines::vllm {

/// From the outermost axis to the innermost. LBNHC is what was NHD, LBHNC what was HND.
enum class kv_cache_layout : std::uint8_t { LBHNC, LBNHC, LHBNC, BLHNC, BLNHC, BHLNC };

/// int8_per_token_head and fp8_per_token_head: an f32 scale lies behind K's elements of a row, and one behind V's.
enum class kv_quant : std::uint8_t { none, per_token_head };

struct kv_cache {
  void* tensor = nullptr;
  pages::sizes shape{};  // layers: those of the tensor
  kv_cache_layout layout = kv_cache_layout::LBHNC;
  kv_quant quant = kv_quant::none;
  // of KVCacheTensor, in bytes, where they are not those of a dense tensor (block_stride is that of all groups together
  // where blocks are outermost); 0: dense
  std::int64_t layer_stride = 0, block_stride = 0, offset = 0;
};

constexpr char const* shape_of(kv_cache_layout l) {
  constexpr char const* shapes[] = {"LBHN2D", "LBNH2D", "LHBN2D", "BLHN2D", "BLNH2D", "BHLN2D"};
  return shapes[static_cast<int>(l)];
}

namespace rows {

/// Strides in which something else lies between layers or blocks.
inline component placed(kv_cache const& kv, component c) {
  if (kv.block_stride > 0) c.rows.page_stride = kv.block_stride;
  if (kv.layer_stride > 0) c.rows.layer_stride = kv.layer_stride;
  c.rows.offset += kv.offset;
  return c;
}

/// `bytes` of a row from `at` on.
inline component part(component row, role what, dtype type, std::int64_t at, std::int32_t bytes) {
  row.what = what, row.type = type, row.scope = quant_scope::token_head;
  row.rows.offset += at, row.rows.run_bytes = bytes;
  return row;
}

}  // namespace rows

/// K and V of all layers; with per_token_head, their scales, too. Rows of other quantisations (nvfp4, turboquant) are
/// opaque: describe their slots by pages::tensor.
inline layer_view<> with_components(layer_view<> out, kv_cache const& kv) {
  if (kv.quant == kv_quant::none) {
    pages::kv const both = pages::k_and_v(kv.tensor, kv.shape, shape_of(kv.layout));
    return out.with(rows::placed(kv, both.k)).with(rows::placed(kv, both.v));
  }
  KVEVICT_EXPECTS(size_of(kv.shape.type) == 1 && kv.shape.head_dim % 4 == 0 && kv.shape.v_head_dim % 4 == 0,
                  "vllm::view: rows of ", kv.shape.head_dim, " elements of ", name_of(kv.shape.type),
                  " have no f32 scale at a multiple of 4 bytes; give the one-byte type and the head size");
  pages::sizes row = kv.shape;
  std::int32_t const k = row.head_dim, v = row.v_head_dim > 0 ? row.v_head_dim : k, scale = 4;
  row.head_dim = k + scale, row.v_head_dim = v + scale;
  pages::kv const both = pages::k_and_v(kv.tensor, row, shape_of(kv.layout));
  component const keys = rows::placed(kv, both.k), values = rows::placed(kv, both.v);
  return out.with(rows::part(keys, role::k, row.type, 0, k))
      .with(rows::part(values, role::v, row.type, 0, v))
      .with(rows::part(keys, role::k_scale, dtype::f32, k, scale))
      .with(rows::part(values, role::v_scale, dtype::f32, v, scale));
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
  layer_view<> out;
  out.pages = pages::dense(block_table, num_reqs, max_num_blocks, kv.shape);
  out.pages.layers = kv.shape.layers, out.pages.sequences = kv.shape.layers * num_reqs;
  out.lengths = {seq_lens};
  return with_components(out, kv);
}

}  // namespace engines::vllm
}  // namespace KVEVICT_ABI
}  // namespace kvevict
