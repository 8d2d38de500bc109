// SPDX-License-Identifier: Apache-2.0
// The kernels of small matrices on a device, against the host's, for widths that are no multiple of any tile.
#include <kvevict/cuda/scores/gram.hpp>
#include <kvevict/cuda/scores/inverse_cholesky.hpp>
#include <kvevict/cuda/scores/mapped_sums.hpp>
#include <kvevict/kernels/host.hpp>

#include "simt/device_rows.hpp"
#include "support/catch.hpp"
#include "support/row_case.hpp"

namespace matrix_test {

using namespace simt_test;
using namespace kvevict;

namespace {

struct waves {
  KVEVICT_HOST_DEVICE void operator()(row const& in, std::int64_t j, std::int32_t first, float (&x)[row_chunk]) const {
    for (std::int32_t i = 0; i < row_chunk; ++i) {
      auto const a = static_cast<std::int32_t>(j * (2 * j + 3)) + (first + i) * (in.head + 5) * (in.sequence + 3);
      x[i] = static_cast<float>((a * 2654435761u >> 20) % 1000u) * 1e-3f - 0.5f;  // behind the width, too
    }
  }
};

template <class Real> double worst(std::vector<Real> const& a, std::vector<Real> const& b) {
  REQUIRE(a.size() == b.size());
  double out = 0;
  for (std::size_t i = 0; i < a.size(); ++i) out = std::max(out, std::abs(static_cast<double>(a[i] - b[i])));
  return out;
}

}  // namespace

TEST_CASE("Gram matrices, their inverse factors and mapped sums on a device are the host's") {
  for (std::int32_t const D : {1, 7, 40, 72, 136}) {
    CAPTURE(D);
    layouts::cache_shape shape;
    shape.lengths = {D == 136 ? 200 : 97, 0, 3}, shape.heads = 1, shape.head_dim = 8;
    layouts::cache<std::int32_t> cache(layouts::layout::nhd, shape);
    auto in = support::rows_of(cache);
    for (row& it : in.rows) it.active = true;
    score_rows const rows = support::host_rows(in);
    device_rows const there(rows, 40);
    scheduled const schedule(static_cast<std::uint64_t>(D));
    auto const size = static_cast<std::size_t>(rows.count() * D * D);
    std::vector<double> products(size, 0.0);
    std::vector<float> map(size, 9.0f);
    on_device<double> products_there(products);
    on_device<float> map_there(map);
    host ctx;
    cuda::device gpu(default_stream());
    kernels::gram(ctx, rows, D, waves{}, products.data());
    kernels::gram(gpu, there.view, D, waves{}, products_there.data());
    gpu.wait();
    CHECK(worst(products_there.read(), products) < 2e-5);
    kernels::cholesky_options const ridge{0.01, 1e-3};
    kernels::inverse_cholesky(ctx, rows, D, ridge, products.data(), map.data());
    kernels::inverse_cholesky(gpu, there.view, D, ridge, products_there.data(), map_there.data());
    kernels::mapped_sums(ctx, rows, kernels::lower_map{map.data(), D}, waves{});
    kernels::mapped_sums(gpu, there.view, kernels::lower_map{map_there.data(), D}, waves{});
    gpu.wait();
    CHECK(worst(map_there.read(), map) < 1e-3);
    std::vector<float> want;
    kernels::read_scores(ctx, rows, want);
    CHECK(worst(there.values(gpu), want) < 1e-5);
    for (float const x : want) CHECK((x >= 0 && x <= 1));
  }
}

}  // namespace matrix_test
