// SPDX-License-Identifier: Apache-2.0
// Rows that a view calls ascending: every position that does not ascend is found, wherever it lies.
#include <kvevict/evidence/order.hpp>

#include <algorithm>
#include <string>
#include <vector>

#include "support/catch.hpp"

namespace policy_order_test {

namespace {

/// Positions of 18 heads with 41 or 40 tokens, 3·t; pages in falling order. `side_by_side`: a head's lie side by side.
struct positions {
  static constexpr std::int32_t H = 18, N = 41;
  std::int32_t P, pages;
  std::vector<std::int32_t> of, table, lengths;
  kvevict::layer_view<> view;

  positions(std::int32_t page_size, bool side_by_side) : P(page_size), pages((N + P - 1) / P) {
    of.resize(std::size_t(pages * P * H), -7);  // behind the last token is what nobody may look at
    for (std::int32_t i = pages; i > 0; --i) table.push_back(i - 1);
    for (std::int32_t h = 0; h < H; ++h) lengths.push_back(N - h % 2);
    view.pages.entries = table.data(), view.pages.sequences = 1, view.pages.heads = H, view.pages.columns = pages;
    view.pages.seq_stride = pages, view.pages.page_size = P;
    view.lengths = {lengths.data(), H, 1};
    kvevict::component c;
    std::int64_t const slot = side_by_side ? 4 : H * 4, head = side_by_side ? P * 4 : 4;
    c.rows = {reinterpret_cast<std::byte*>(of.data()), 0, pages, P * H * 4, head, slot, 0, 4, 1};
    c.type = kvevict::dtype::i32, c.what = kvevict::role::position;
    view = view.with(c);
    for (std::int32_t h = 0; h < H; ++h)
      for (std::int32_t t = 0; t < lengths[std::size_t(h)]; ++t) at(h, t) = 3 * t;
  }
  std::int32_t& at(std::int32_t h, std::int32_t t) {
    return kvevict::element<std::int32_t>(view, *view.find(kvevict::role::position), 0, h, t);
  }
  std::string said() const {
    try {
      kvevict::planning::expect_order(view, {});
    } catch (kvevict::contract_violation const& e) {
      return e.what();
    }
    return "";
  }
};

}  // namespace

TEST_CASE("order: a position that does not ascend is found at every token of every head") {
  for (std::int32_t const P : {1, 4, 9, 16, 20, 48})
    for (bool const side_by_side : {true, false}) {
      positions in(P, side_by_side);
      CAPTURE(P, side_by_side);
      CHECK(in.said().empty());
      for (std::int32_t h = 0; h < in.H; ++h)
        for (std::int32_t t = 0; t < in.lengths[std::size_t(h)]; ++t) {
          std::int32_t const was = in.at(h, t);
          in.at(h, t) = t == 0 ? -1 : in.at(h, t - 1);
          std::string const said = in.said(), where = "head " + std::to_string(h);
          in.at(h, t) = was;
          if (said.find(where) == std::string::npos || said.find(std::to_string(t)) == std::string::npos)
            FAIL("head " << h << ", token " << t << ": '" << said << "'");
        }
    }
}

}  // namespace policy_order_test
