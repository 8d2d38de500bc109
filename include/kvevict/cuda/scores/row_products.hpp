// SPDX-License-Identifier: Apache-2.0
// The product of every token with a vector of its row, on a device.
#pragma once

#include <kvevict/cuda/scores/each.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

void has_kernel(kernels::row_products_tag, device&);

template <class Elements, class F> struct row_product {
  Elements of;
  score_rows rows;
  float const* vectors;  // (B·H, D)
  F f;

  KVEVICT_HOST_DEVICE void operator()(row const& in, std::int64_t j, float& x) const {
    auto const k = of.reader(in);
    f(k.dot(j, vectors + rows.index_of(in) * k.width()), x);
  }
};

/// The host's (kernels/row_products.hpp) to float rounding, the same bits in every layout. One launch.
template <class Elements, class F>
void kernel(kernels::row_products_tag, device& ctx, score_rows const& out, Elements const& of, float const* vectors,
            F const& f) {
  kernels::each_token(ctx, out, row_product<Elements, F>{of, out, vectors, f});
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
