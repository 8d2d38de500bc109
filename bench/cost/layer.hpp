// SPDX-License-Identifier: Apache-2.0
// One layer of one sequence: a paged cache in an engine's layout with the prompt's queries.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include <kvevict/engines/pages.hpp>
#include <kvevict/kvevict.hpp>

#include "cost/models.hpp"

namespace cost {

enum class table : std::uint8_t { of_sequence, of_head };

struct shape {
  model of;
  std::int32_t tokens = 8192, page_size = 16;
  kvevict::dtype type = kvevict::dtype::f32;
  std::string layout = "vllm";

  std::int64_t row_bytes() const { return std::int64_t{of.head_dim} * kvevict::size_of(type); }
  /// K and V of a layer; a latent row holds both.
  double cache_bytes() const { return double(tokens) * of.kv_heads * double(row_bytes()) * (of.latent_v > 0 ? 1 : 2); }
};

class layer {
 public:
  layer(shape const& s, table kind) : s_(s), row_begin_{0, s.tokens} {
    std::int32_t const H = s.of.kv_heads, columns = (s.tokens + s.page_size - 1) / s.page_size,
                       tables = kind == table::of_head ? H : 1;
    bool const contiguous = s.layout == "contiguous" && kind == table::of_sequence;
    ids_.resize(std::size_t(columns) * std::size_t(tables));
    std::iota(ids_.begin(), ids_.end(), 0);
    std::shuffle(ids_.begin(), ids_.end(), std::minstd_rand(1));
    lengths_.assign(std::size_t(tables), s.tokens);
    namespace pages = kvevict::pages;
    pages::sizes const z{.pages = contiguous ? 1 : std::int64_t{columns} * tables,
                         .page_size = contiguous ? s.tokens : s.page_size,
                         .heads = kind == table::of_head ? 1 : H,
                         .head_dim = s.of.head_dim,
                         .type = s.type,
                         .v_head_dim = s.of.latent_v};
    bool const latent = s.of.latent_v > 0;
    memory_.resize(std::size_t(z.pages * z.page_size * z.heads * s.row_bytes() * (latent ? 1 : 2)));
    fill(memory_, s.type);
    char const* const axes = contiguous || s.layout == "hnd" ? "2BHND" : s.layout == "vllm" ? "BHN2D" : "2BNHD";
    auto kv = latent ? pages::latent(memory_.data(), z, "BNHD") : pages::k_and_v(memory_.data(), z, axes);
    kv.k.turned_by = kvevict::rotation::rope;
    auto const t = contiguous               ? pages::contiguous(1, z)
                   : kind == table::of_head ? pages::by_head(ids_.data(), 1, H, columns, z)
                                            : pages::dense(ids_.data(), 1, columns, z);
    view_ = pages::view(t, {lengths_.data(), tables, kind == table::of_head ? 1 : 0}, kv);
    queries_.resize(std::size_t(s.tokens) * std::size_t(s.of.q_heads) * std::size_t(s.of.head_dim) * 4);
    fill(queries_, kvevict::dtype::f32);
  }

  kvevict::layer_view<> const& view() const { return view_; }
  /// With so many floats of state a slot.
  kvevict::layer_view<> with_state(std::int32_t floats) {
    auto const& t = view_.pages;
    std::int32_t const heads = t.head_stride == 0 ? t.heads : 1;
    kvevict::pages::sizes const z{.pages = t.entries == nullptr ? 1 : std::int64_t(ids_.size()),
                                  .page_size = t.page_size,
                                  .heads = heads,
                                  .head_dim = floats,
                                  .type = kvevict::dtype::f32};
    state_.assign(std::size_t(z.pages * z.page_size * heads * floats), 0.0f);
    return view_.with(kvevict::pages::tensor(kvevict::role::state, state_.data(), z, "BNHD"));
  }
  /// With ‖v·W_O‖₁ of each token, a float that an engine writes beside its value.
  kvevict::layer_view<> with_output_norms() {
    kvevict::layer_view<> out = with_state(1);
    out.components[std::size_t(out.component_count - 1)].what = kvevict::role::output_norm;
    return out;
  }
  /// Those of the newest `rows` tokens.
  kvevict::query_rows queries(std::int32_t rows) {
    row_begin_[1] = rows;
    kvevict::query_rows q;
    q.token_stride = std::int64_t{s_.of.q_heads} * s_.of.head_dim;
    q.data = queries_.data() + (s_.tokens - rows) * q.token_stride * 4;
    q.head_stride = s_.of.head_dim, q.heads = s_.of.q_heads, q.head_dim = s_.of.head_dim, q.row_begin = row_begin_;
    positions_.resize(std::size_t(rows));
    std::iota(positions_.begin(), positions_.end(), s_.tokens - rows);
    q.positions = positions_.data();
    return q;
  }
  std::vector<std::byte>& memory() { return memory_; }

 private:
  /// Numbers that look normal, a block of them again and again.
  static void fill(std::vector<std::byte>& out, kvevict::dtype type) {
    std::minstd_rand random(3);
    std::size_t const size = std::size_t(kvevict::size_of(type)),
                      block = std::min<std::size_t>(out.size() / size, 65521);
    for (std::size_t i = 0; i < block; ++i) {
      float x = -6;
      for (int k = 0; k < 4; ++k) x += 3 * float(random()) / 2147483647.0f;
      if (type == kvevict::dtype::f32) {
        std::memcpy(&out[i * size], &x, size);
      } else if (type == kvevict::dtype::bf16) {
        auto const y = kvevict::from_float<kvevict::bf16>(x);
        std::memcpy(&out[i * size], &y, size);
      } else {
        auto const y = kvevict::from_float<kvevict::f16>(x);
        std::memcpy(&out[i * size], &y, size);
      }
    }
    for (std::size_t at = block * size; at < out.size(); at += block * size)
      std::memcpy(&out[at], out.data(), std::min(block * size, out.size() - at));
  }

  shape s_;
  std::int32_t row_begin_[2];
  std::vector<std::int32_t> ids_, lengths_, positions_;
  std::vector<std::byte> memory_, queries_;
  std::vector<float> state_;
  kvevict::layer_view<> view_;
};

}  // namespace cost
