// SPDX-License-Identifier: Apache-2.0
// Views in which strides alone do not tell whether rows share bytes: pages among each other, ids that count rows, pools
// of blocks. ownership_test.cpp compares random ones with a brute force.
#include <limits>
#include <vector>

#include <kvevict/cache/validate.hpp>

#include "support/catch.hpp"
#include "support/keep_sets.hpp"

namespace cache_row_bytes_test {

using namespace kvevict;
using Catch::Contains;

namespace {

constexpr std::int64_t row_size = 64;

/// Sequences of whole pages of 4 slots, one head unless said otherwise; memory that is never read.
template <class Entry> struct cache {
  std::vector<Entry> entries;
  std::vector<std::int32_t> lengths;
  layer_view<Entry> view;

  cache(std::vector<Entry> pages, std::int32_t sequences, std::int32_t heads = 1) : entries(std::move(pages)) {
    auto const columns = static_cast<std::int32_t>(entries.size()) / sequences;
    lengths.assign(static_cast<std::size_t>(sequences), 4 * columns);
    view.pages.entries = entries.data(), view.pages.sequences = sequences, view.pages.heads = heads;
    view.pages.columns = columns, view.pages.seq_stride = columns, view.pages.page_size = 4;
    view.lengths.data = lengths.data();
  }
  cache& add(role what, std::int64_t offset, std::int64_t page_count, std::int64_t page_stride,
             std::int64_t slot_stride, std::int64_t head_stride = 0, std::int64_t layer_stride = 0) {
    component c;
    c.what = what;
    c.rows = {pool(0), offset, page_count, page_stride, head_stride, slot_stride, 0, row_size, 1, layer_stride};
    if (page_table<Entry>::holds_pointers) c.rows.base = nullptr;
    view = view.with(c);
    return *this;
  }
  static std::byte* pool(std::int64_t at) { return reinterpret_cast<std::byte*>(std::intptr_t{1 << 20} + at); }
  std::string refused() const {
    return support::refusal([&] { validate(view); });
  }
};
using ids = cache<std::int32_t>;
using addresses = cache<std::byte*>;

}  // namespace

TEST_CASE("row bytes: of three addresses x < y < z the last one overlaps the first") {
  // a slot is two heads' rows: x and y are the heads of a page, z begins in the third slot of x
  addresses c({addresses::pool(0), addresses::pool(row_size), addresses::pool(4 * row_size)}, 3);
  c.add(role::k, 0, 0, 0, 2 * row_size);
  CHECK_THAT(c.refused(),
             Contains("page 0 of sequence 2, head 0 begins 256 bytes into page 0 of sequence 0, head 0 and "
                      "overlaps it; correct the table"));
  c.entries[2] = addresses::pool(8 * row_size);
  CHECK(c.refused() == "");
  c.entries[2] = addresses::pool(-1 * row_size);  // heads of another page
  CHECK_THAT(c.refused(), Contains("overlaps it"));
  c.entries[2] = addresses::pool(-8 * row_size);
  CHECK(c.refused() == "");
}

TEST_CASE("row bytes: many interleaved heads, and one page that is not in step") {
  std::int64_t const H = 16;
  std::vector<std::byte*> table;
  for (std::int64_t page = 0; page < 40; ++page)
    for (std::int64_t h = 0; h < H; ++h) table.push_back(addresses::pool((page * 4 * H + h) * row_size));
  addresses c(table, 40);
  c.add(role::k, 0, 0, 0, H * row_size).add(role::v, 40 * 4 * H * row_size, 0, 0, H * row_size);
  CHECK(c.refused() == "");
  for (std::int64_t const by : {H * row_size, -H * row_size, 3 * H * row_size, row_size - 4}) {
    CAPTURE(by);
    c.entries = table, c.entries[333] += by, c.view.pages.entries = c.entries.data();
    CHECK_THAT(c.refused(), Contains("overlaps it"));
  }
}

TEST_CASE("row bytes: ids that count rows, whose last slots lie behind the pool, in the next layer") {
  // 20 rows a layer: two pages of 4 slots × 2 heads, and half of one
  ids c({0, 8, 16, 0, 8, 1}, 2);
  c.view.pages.layers = 2, c.view.pages.layer_stride = 3;
  c.add(role::k, 0, 20, row_size, 2 * row_size, 0, 20 * row_size);
  CHECK_THAT(c.refused(),
             Contains("page 2 of sequence 0, head 0 has id 16 and reaches behind the 20 pages of component k"));
  c.entries[2] = 9;
  CHECK(c.refused() == "");
  c.view.components[0].rows.page_count = 23, c.view.components[0].rows.layer_stride = 23 * row_size;
  c.entries[2] = 16;  // rows 16, 18, 20, 22
  CHECK(c.refused() == "");
}

TEST_CASE("row bytes: ids that count rows and start pages, the last of which is not whole") {
  ids c({0, 8, 16}, 1);
  c.add(role::k, 0, 22, row_size, 2 * row_size);
  CHECK_THAT(c.refused(), Contains("has id 16 and reaches behind the 22 pages of component k"));
  c.view.components[0].rows.page_count = 23;
  CHECK(c.refused() == "");
}

TEST_CASE("row bytes: ids that count rows of one pool with K and V adjacent, for two heads and for one") {
  for (std::int64_t const H : {1, 2}) {
    std::int64_t const rows = 3 * 4 * H;
    std::vector<std::int32_t> table{0, static_cast<std::int32_t>(8 * H)};
    if (H == 2) table.insert(table.end(), {1, 17});
    ids c(table, static_cast<std::int32_t>(H));
    c.add(role::k, 0, rows, row_size, H * row_size).add(role::v, rows * row_size, rows, row_size, H * row_size);
    CAPTURE(H);
    CHECK(c.refused() == "");
    c.view.components[1].rows.offset -= row_size;
    CHECK_THAT(c.refused(), Contains("components k and v overlap in page 1 of sequence "));
    c.view.components[1].rows.offset += row_size;
    c.entries[1] = 3;  // in the first page
    CHECK_THAT(c.refused(), Contains("rows of component k overlap each other in page "));
  }
}

TEST_CASE("row bytes: V in the block behind K's, by the same even ids") {
  ids c({0, 4, 2, 6}, 2, 2);
  std::int64_t const block = 8 * row_size;
  c.add(role::k, 0, 7, block, row_size, 4 * row_size).add(role::v, block, 7, block, row_size, 4 * row_size);
  CHECK(c.refused() == "");
  c.entries[2] = 5;
  CHECK_THAT(c.refused(),
             Contains("components k and v overlap in page 0 of sequence 1, head 0 and page 1 of sequence 0"));
}

TEST_CASE("row bytes: heads with tables of their own may share a page in which each has its rows") {
  std::vector<std::int32_t> const own{4, 4};
  ids c({3, 3}, 1, 2);
  c.view.pages.columns = 1, c.view.pages.head_stride = 1, c.view.pages.seq_stride = 2;
  c.view.lengths = {own.data(), 2, 1};
  c.add(role::k, 0, 4, 8 * row_size, row_size, 4 * row_size);
  CHECK(c.refused() == "");
  c.add(role::position, 4 * 8 * row_size, 4, 4 * row_size, row_size);  // one for both heads
  c.view.components[1].type = dtype::i32;
  CHECK_THAT(c.refused(), Contains("page 0 of sequence 0, head 1 is also page 0 of sequence 0, head 0"));
}

TEST_CASE("row bytes: pages that nobody writes may lie on each other, but not in one row") {
  std::vector<std::int32_t> read_only{4, 4};
  ids c({0, 2}, 2);
  c.view = c.view.with_read_only(read_only.data());
  c.add(role::k, 0, 8, row_size, row_size);
  CHECK(c.refused() == "");
  read_only[1] = 0;
  CHECK_THAT(c.refused(), Contains("rows of component k overlap each other"));
  ids one({0, 2}, 1);
  read_only[0] = 8;
  one.view = one.view.with_read_only(read_only.data());
  one.add(role::k, 0, 8, row_size, row_size);
  CHECK_THAT(one.refused(), Contains("rows of component k overlap each other"));
}

TEST_CASE("row bytes: a prefix of a thousand sequences, by ids that count rows, is checked in time") {
  std::vector<std::int32_t> table, read_only(1000, 12);
  for (std::int32_t b = 0; b < 1000; ++b) table.insert(table.end(), {1, 5, 9, 13 + 4 * b});  // no multiples of 4
  ids c(table, 1000);
  c.view = c.view.with_read_only(read_only.data());
  c.add(role::k, 0, 4013, row_size, row_size).add(role::v, 4013 * row_size, 4013, row_size, row_size);
  CHECK(c.refused() == "");
  c.entries[4 * 700 + 1] = 3;  // in pages 1 and 5 of all others, and of its own row
  CHECK_THAT(c.refused(), Contains("overlap each other in page 0 of sequence 700, head 0 and page 1 of sequence 700"));
}

TEST_CASE("row bytes: far strides are taken apart, runs of a transposed component by addresses") {
  // V (D, tokens), page size 1: 64 runs of 4 bytes, one from each line of 1000 tokens
  std::vector<std::byte*> table;
  for (std::int64_t t = 0; t < 1000; ++t) table.push_back(addresses::pool(4 * (t * 389 % 1000)));
  addresses c(table, 1);
  c.view.pages.page_size = 1, c.lengths[0] = 1000;
  component v;
  v.rows = {nullptr, 0, 0, 0, 0, 0, 4000, 4, 64};
  c.view = c.view.with(v);
  CHECK(c.refused() == "");
  c.entries[500] += 4000;  // a line further, where nobody else is in its column
  CHECK(c.refused() == "");
  c.entries[500] += 4;
  CHECK_THAT(c.refused(), Contains("overlaps it"));
}

TEST_CASE("row bytes: strides of tables and lengths, and pages of addresses, beyond 64 bits") {
  constexpr std::int64_t largest = std::numeric_limits<std::int64_t>::max();
  auto const with = [&](auto change) {
    ids c({0, 1}, 2);
    c.add(role::k, 0, 4, 4 * row_size, row_size);
    change(c.view);
    return c.refused();
  };
  CHECK(with([](auto&) {}) == "");
  CHECK_THAT(with([&](auto& v) { v.pages.seq_stride = largest; }), Contains("entries apart, beyond 64 bits"));
  CHECK_THAT(with([&](auto& v) { v.lengths.seq_stride = largest; }), Contains("lengths are 9223372036854775807 apart"));
  CHECK_THAT(with([&](auto& v) { v.lengths.seq_stride = -1; }), Contains("lengths are -1 apart"));
  CHECK_THAT(with([&](auto& v) { v.lengths.head_stride = std::numeric_limits<std::int64_t>::min(); }),
             Contains("count upwards"));
  CHECK_THAT(with([&](auto& v) { v.pages.heads = 1 << 30; }), Contains("fewer than 2^31 rows"));
  addresses c({reinterpret_cast<std::byte*>(largest - 255)}, 1);
  c.add(role::k, 0, 0, 0, row_size);
  CHECK_THAT(c.refused(), Contains("ends beyond the addresses of 63 bits"));
}

}  // namespace cache_row_bytes_test
