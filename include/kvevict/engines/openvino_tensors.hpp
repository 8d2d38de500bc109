// SPDX-License-Identifier: Apache-2.0
// What is read of OpenVINO's tensors: integers of a step, and the rows of its layers' caches.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include <kvevict/cache/layer_view.hpp>
#include <kvevict/cache/quantisation.hpp>
#include <kvevict/core/contract.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace engines::openvino {

/// Tokens of a page.
inline constexpr std::int32_t block_size = 32;

namespace tensors {

template <class Tensor> std::int64_t extent(Tensor const& t, std::size_t axis) {
  return static_cast<std::int64_t>(t.get_shape()[axis]);
}
template <class Tensor> std::int32_t const* integers(char const* name, Tensor const& t, std::int64_t least) {
  KVEVICT_EXPECTS(t.get_element_type().get_type_name() == "i32" && t.get_shape().size() == 1 && extent(t, 0) >= least,
                  "openvino: ", name, " is no i32 tensor of ", least, " or more elements; give the model's own input");
  return static_cast<std::int32_t const*>(t.data());
}
/// Where each of S sequences begins, and where the last one ends.
template <class Tensor> std::int32_t const* begins_of(char const* name, Tensor const& t, std::int64_t S) {
  auto const* const begins = integers(name, t, S + 1);
  KVEVICT_EXPECTS(begins[0] >= 0 && std::is_sorted(begins, begins + S + 1), "openvino: ", name,
                  " does not ascend from 0 on; give the tensor of a step that has run");
  return begins;
}

inline dtype type_of(std::string const& element, char const* name, std::size_t layer) {
  if (element == "f16") return dtype::f16;
  if (element == "bf16") return dtype::bf16;
  KVEVICT_EXPECTS(element == "f32" || element == "u8", "openvino: ", name, layer, " is ", element,
                  "; set KV_CACHE_PRECISION to f32, f16, bf16 or u8");
  return element == "f32" ? dtype::f32 : dtype::u8;
}

/// [pages, H, rows, row], dense or a part of a larger tensor. A token's row of u8 is its scale and its zero point, f32,
/// then its codes. Of keys by channel a head's part of a page begins with the scales and then the zero points of all
/// channels, over 8 rows that lie side by side, and a token's row is its codes.
template <class Tensor> component rows_of(role what, Tensor t, std::size_t layer) {
  char const* const name = what == role::k ? "key_cache." : "value_cache.";
  auto const& shape = t.get_shape();
  auto const& strides = t.get_strides();
  KVEVICT_EXPECTS(shape.size() == 4, "openvino: ", name, layer, " has ", shape.size(),
                  " axes; give the CPU plugin's [pages, heads, ", block_size, ", head size]");
  component c;
  c.what = what, c.type = type_of(t.get_element_type().get_type_name(), name, layer);
  bool const by_channel = what == role::k && c.type == dtype::u8 && extent(t, 2) == block_size + 8;
  KVEVICT_EXPECTS(extent(t, 2) == block_size || by_channel, "openvino: ", name, layer, " has ", extent(t, 2),
                  " rows a page; pages are ", block_size, " tokens, and 8 rows more where u8 keys are by channel");
  auto const stride = [&](std::size_t axis) { return static_cast<std::int64_t>(strides[axis]); };
  KVEVICT_EXPECTS(stride(3) == size_of(c.type), "openvino: elements of ", name, layer, " are ", stride(3),
                  " bytes apart and ", size_of(c.type), " long; give strides in bytes, as ov::Tensor has them");
  c.rows.base = static_cast<std::byte*>(t.data()), c.rows.offset = by_channel ? 8 * stride(2) : 0;
  c.rows.page_count = extent(t, 0), c.rows.page_stride = stride(0);
  c.rows.head_stride = extent(t, 1) > 1 ? stride(1) : 0, c.rows.slot_stride = stride(2);
  c.rows.run_bytes = static_cast<std::int32_t>(extent(t, 3) * size_of(c.type));
  std::int32_t const channels = c.rows.run_bytes;
  KVEVICT_EXPECTS(!by_channel || stride(2) == channels, "openvino: rows of ", name, layer, " have ", channels,
                  " bytes and are ", stride(2),
                  " apart, but scales of u8 keys by channel lie over 8 of them; give a tensor whose rows are dense");
  if (by_channel) return quantised::by_channel(c, dtype::u8, -8 * channels, -4 * channels);
  KVEVICT_EXPECTS(c.type != dtype::u8 || channels > 8, "openvino: ", name, layer, " has rows of ", channels,
                  " bytes; a row of u8 is a scale, a zero point and a code for each channel");
  return c.type == dtype::u8 ? quantised::openvino(c, dtype::u8) : c;
}

/// One component of all layers, which lie at one distance.
template <class Tensors> component stack_of(role what, Tensors const& layers) {
  component c = rows_of(what, layers[0], 0);
  for (std::size_t l = 1; l < layers.size(); ++l) {
    component const x = rows_of(what, layers[l], l);
    if (l == 1) c.rows.layer_stride = x.rows.base - c.rows.base;
    bool const alike = layers[l].get_shape() == layers[0].get_shape() && x.type == c.type &&
                       x.rows.offset == c.rows.offset && x.rows.page_stride == c.rows.page_stride &&
                       x.rows.head_stride == c.rows.head_stride && x.rows.slot_stride == c.rows.slot_stride;
    KVEVICT_EXPECTS(
        alike && c.rows.layer_stride > 0 &&
            x.rows.base - c.rows.base == static_cast<std::int64_t>(l) * c.rows.layer_stride,
        "openvino: ", name_of(what), " of layer ", l,
        " has another shape, other strides or does not lie as far from the layer before as the others do; wrap the "
        "layers' tensors around parts of one allocation, or make a cache of each layer");
  }
  return c;
}

}  // namespace tensors

}  // namespace engines::openvino
}  // namespace KVEVICT_ABI
}  // namespace kvevict
