// SPDX-License-Identifier: Apache-2.0
#include <kvevict/cache/validate.hpp>

#include <limits>

#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/keep_sets.hpp"
#include "support/layouts.hpp"

namespace cache_validate_test {

using namespace kvevict;
using layouts::layout;
using support::contains;

namespace {

template <class Entry> std::string refused(layer_view<Entry> const& v) {
  std::string const message = support::refusal([&] { validate(v); });
  if (!message.empty()) CHECK(contains(message, "; "));  // what to do
  return message;
}

layouts::cache<std::int32_t> some_cache(layout l = layout::nhd) {
  return {l, {.lengths = {10, 7}, .heads = 2, .page_size = 4, .state_floats = 1}};
}

component& part(layer_view<>& v, std::size_t i) { return v.components[i]; }

}  // namespace

TEST_CASE(
    "validate: sound caches of every layout, page size and type, bounded scratch, no allocation after the first call") {
  for (std::int32_t const P : {1, 16, 64, 256})
    for (dtype const type : {dtype::f32, dtype::f16, dtype::bf16})
      layouts::for_each_layout(
          {.lengths = {300, 0, 1, 37}, .heads = 3, .page_size = P, .type = type, .state_floats = 5}, [&](auto& c) {
            CAPTURE(c.name(), P);
            arena scratch;
            validate(c.view, scratch);
            auto const before = allocations();
            validate(c.view, scratch);
            CHECK(allocations() == before);
            std::int64_t const pages = static_cast<std::int64_t>(c.entries().size());
            CHECK(scratch.high_water() <= static_cast<std::size_t>(validate_bytes(
                                              pages, std::max<std::int64_t>(pages, c.view.begin()->rows.page_count))));
          });
}

TEST_CASE("validate: an empty batch and zero tokens are sound") {
  layer_view<> v;
  v.pages.page_size = 16, v.component_count = 1;
  CHECK(refused(v).empty());
  v.pages.heads = 8;
  CHECK(refused(v).empty());
  std::int32_t const none[] = {0, 0};
  v.pages.sequences = 2, v.lengths.data = none;
  CHECK(refused(v).empty());
}

TEST_CASE("validate: page table: id out of range") {
  auto c = some_cache();
  c.entries()[1] = static_cast<std::int32_t>(part(c.view, 0).rows.page_count);
  CHECK(contains(refused(c.view), "page 1 of sequence 0, head 0 has id"));
  c.entries()[1] = -1;
  CHECK(contains(refused(c.view), "has id -1"));
}

TEST_CASE("validate: page table: entries behind the tokens may be anything") {
  auto c = some_cache();
  c.entries()[5] = 1 << 30;  // sequence 1 has two pages, the table three columns
  CHECK(refused(c.view).empty());
}

TEST_CASE("validate: page table: twice in a row") {
  auto c = some_cache();
  c.entries()[2] = c.entries()[0];
  CHECK(contains(refused(c.view), "pages 0 and 2 of sequence 0, head 0 are the same page"));
}

TEST_CASE("validate: page table: one page of two sequences") {
  auto c = some_cache();
  c.entries()[3] = c.entries()[1];
  CHECK(contains(refused(c.view), "page 0 of sequence 1, head 0 is also page 1 of sequence 0"));
}

TEST_CASE("validate: page table: one page of two heads") {
  auto c = some_cache(layout::head_pages);
  c.entries()[3] = c.entries()[1];
  CHECK(contains(refused(c.view), "is also page 1 of sequence 0, head 0"));
}

TEST_CASE("validate: page table: a shared prefix is sound, a written page inside it is not") {
  auto c = some_cache();
  std::int32_t read_only[] = {4, 4};
  c.entries()[3] = c.entries()[0];
  CHECK(!refused(c.view).empty());
  auto v = c.view.with_read_only(read_only);
  CHECK(refused(v).empty());
  read_only[1] = 0;
  CHECK(contains(refused(v), "would be written by both"));
  read_only[1] = 7;  // the whole sequence
  CHECK(refused(v).empty());
  c.entries()[4] = c.entries()[3];
  CHECK(contains(refused(v), "pages 0 and 1 of sequence 1, head 0 are the same page"));
}

TEST_CASE("validate: page table: tag bits without their mask") {
  auto c = some_cache();
  for (auto& e : c.entries()) e |= std::numeric_limits<std::int32_t>::min();
  CHECK(contains(refused(c.view), "index_mask"));
  c.view.pages.index_mask = 0x7fffffff;
  CHECK(refused(c.view).empty());
}

TEST_CASE("validate: page table: CSR offsets descend") {
  auto c = some_cache(layout::csr);
  CHECK(refused(c.view).empty());
  c.row_begin()[1] = 6;
  CHECK(contains(refused(c.view), "never descend"));
  c.row_begin()[1] = 3, c.row_begin()[0] = -1;
  CHECK(contains(refused(c.view), "never descend"));
}

TEST_CASE("validate: page table: entries are missing") {
  auto c = some_cache(layout::csr);
  c.view.pages.entries = nullptr;
  c.view.pages.page_size = 16;
  CHECK(contains(refused(c.view), "null means a contiguous cache"));
  layouts::cache<std::byte*> p(layout::pointers, {.lengths = {3}, .page_size = 4});
  p.view.pages.entries = nullptr;
  CHECK(contains(refused(p.view), "null means a contiguous cache"));
}

TEST_CASE("validate: page table: rows or heads that count downwards") {
  auto c = some_cache(layout::head_pages);
  auto v = c.view;
  v.pages.head_stride = -v.pages.head_stride;
  CHECK(contains(refused(v), "neither may be negative"));
  v = c.view, v.pages.seq_stride = -1;
  CHECK(contains(refused(v), "neither may be negative"));
}

TEST_CASE("validate: page table: scratch goes by the largest page in use, not by the pool") {
  for (std::int64_t const pages : {std::int64_t{40'000'000'000}, std::int64_t{1} << 48}) {
    auto c = some_cache(layout::hnd);  // K and V in the same pages
    c.view.component_count = 2;
    for (std::size_t i = 0; i < 2; ++i) part(c.view, i).rows.page_count = pages;
    std::int32_t const read_only[] = {4, 0};
    arena scratch;
    validate(c.view.with_read_only(read_only), scratch);
    CHECK(scratch.high_water() <= 128);
    c.entries()[2] = c.entries()[0];
    CHECK(contains(refused(c.view), "are the same page"));
    c.entries()[2] = -1;
    CHECK(contains(refused(c.view), "has id -1"));
  }
}

TEST_CASE("validate: page table: an id of 64 bits that no pool has") {
  auto const c = some_cache(layout::head_pages);
  layer_view<std::int64_t> v;
  std::int64_t entries[] = {0, 1, std::int64_t{1} << 40};
  std::int32_t const lengths[] = {10};
  v.pages.entries = entries, v.pages.sequences = v.pages.heads = 1, v.pages.columns = 3, v.pages.seq_stride = 3,
  v.pages.page_size = 4;
  v.lengths.data = lengths;
  component k = c.view.components[0];
  k.rows.page_count = std::int64_t{1} << 41;
  CHECK(contains(refused(v.with(k)), "a row uses page 1099511627776; ids count pages and lie below 2^31"));
  entries[2] = 7;
  CHECK(refused(v.with(k)).empty());
  for (std::int64_t const pages : {std::int64_t{0}, std::int64_t{-1}, std::numeric_limits<std::int64_t>::min()}) {
    k.rows.page_count = pages;
    CHECK(contains(refused(v.with(k)), "has id 0, but component k has " + std::to_string(pages) + " pages"));
  }
}

TEST_CASE("validate: page table: pages of addresses that overlap in part") {
  layouts::cache<std::byte*> c(layout::pointers, {.lengths = {10, 7}, .heads = 2, .page_size = 4, .state_floats = 1});
  auto const good = c.entries();
  std::int64_t const page = 2 * 2 * 4 * 64 + 2 * 2 * 4 * 4;  // K and V, then positions and state
  for (std::int64_t const apart : {std::int64_t{4}, std::int64_t{64}, page - 4, -page + 4}) {
    c.entries()[3] = good[1] + apart;
    CAPTURE(apart);
    CHECK(contains(refused(c.view), "and overlaps it"));
  }
  c.entries()[3] = good[1] + 64;
  CHECK(contains(refused(c.view), "begins 64 bytes into page"));
  std::int32_t read_only[] = {8, 7};  // nobody writes either
  CHECK(refused(c.view.with_read_only(read_only)).empty());
  read_only[0] = 4;
  CHECK(contains(refused(c.view.with_read_only(read_only)), "and overlaps it"));
}

TEST_CASE("validate: page table: addresses of heads that interleave in a page are apart") {
  std::int64_t const P = 4, H = 2, D = 16, row = D * 4;
  std::vector<std::byte> pool(static_cast<std::size_t>(3 * P * H * row));
  std::byte* entries[] = {pool.data(), pool.data() + 2 * P * H * row, pool.data() + row,
                          pool.data() + 2 * P * H * row + row};
  std::int32_t const lengths[] = {8, 5};
  layer_view<std::byte*> v;
  v.pages.entries = entries, v.pages.sequences = 2, v.pages.heads = 1, v.pages.columns = 2, v.pages.page_size = P,
  v.pages.seq_stride = 2;
  v.lengths.data = lengths;
  component k;
  k.rows = {nullptr, 0, 0, 0, 0, H * row, 0, static_cast<std::int32_t>(row), 1};
  CHECK(refused(v.with(k)).empty());
  entries[3] -= 4;
  CHECK(contains(refused(v.with(k)),
                 "page 1 of sequence 1, head 0 begins 60 bytes into page 1 of sequence 0, head 0 and overlaps it"));
}

TEST_CASE("validate: page table: null, misaligned and double addresses") {
  layouts::cache<std::byte*> c(layout::pointers, {.lengths = {10, 7}, .page_size = 4});
  CHECK(refused(c.view).empty());
  auto const good = c.entries();
  c.entries()[1] = nullptr;
  CHECK(contains(refused(c.view), "page 1 of sequence 0, head 0 is null"));
  c.entries()[1] = good[1] + 2;
  CHECK(contains(refused(c.view), "not aligned"));
  c.entries()[1] = good[2];
  CHECK(contains(refused(c.view), "are the same page"));
  c.entries()[1] = good[1], c.entries()[3] = good[0];
  CHECK(contains(refused(c.view), "would be written by both"));
  std::int32_t read_only[] = {4, 4};
  CHECK(refused(c.view.with_read_only(read_only)).empty());
  read_only[0] = 0;
  CHECK(contains(refused(c.view.with_read_only(read_only)), "would be written by both"));
}

TEST_CASE("validate: lengths: negative, beyond the table, missing") {
  auto c = some_cache();
  c.lengths()[1] = 13;
  CHECK(contains(refused(c.view), "has 13 tokens, but its table addresses 12"));
  c.lengths()[1] = -1;
  CHECK(contains(refused(c.view), "is -1"));
  c.view.lengths.data = nullptr;
  CHECK(contains(refused(c.view), "lengths.data is null"));
}

TEST_CASE("validate: lengths: heads of one table differ") {
  auto c = some_cache();
  std::int32_t const lengths[] = {10, 9, 7, 7};
  c.view.lengths = {lengths, 2, 1};
  CHECK(contains(refused(c.view), "heads 0 and 1 of sequence 0 have 10 and 9 tokens"));
}

TEST_CASE("validate: read-only prefix inside a page") {
  auto c = some_cache();
  std::int32_t const read_only[] = {6, 0};
  CHECK(contains(refused(c.view.with_read_only(read_only)), "not a multiple of the page size"));
  std::int32_t const negative[] = {-4, 0};
  CHECK(!refused(c.view.with_read_only(negative)).empty());
}

TEST_CASE("validate: shape: page size, counts, components") {
  auto c = some_cache();
  auto v = c.view;
  v.pages.page_size = 0;
  CHECK(contains(refused(v), "a page of 0 tokens"));
  v = c.view, v.pages.sequences = -1;
  CHECK(contains(refused(v), "may be negative"));
  v = c.view, v.component_count = 0;
  CHECK(contains(refused(v), "0 components"));
  v.component_count = 9;
  CHECK(contains(refused(v), "9 components"));
  v = c.view, part(v, 0).what = role::rope;
  CHECK(contains(refused(v), "add the keys"));
  v = c.view, part(v, 2).type = dtype::f32;
  CHECK(contains(refused(v), "positions are f32"));
}

TEST_CASE("validate: strides: none where there are several, negative ones") {
  auto c = some_cache(layout::x_packed);
  auto v = c.view;
  part(v, 0).rows.slot_stride = 0;
  CHECK(contains(refused(v), "slot_stride 0"));
  v = c.view, part(v, 1).rows.page_stride = 0;
  CHECK(contains(refused(v), "page_stride 0"));
  v = c.view, part(v, 0).rows.run_stride = 0;
  CHECK(contains(refused(v), "run_stride 0"));
  v = c.view, part(v, 0).rows.head_stride = -64;
  CHECK(contains(refused(v), "negative offset or stride"));
  v = c.view, part(v, 0).rows.base = nullptr;
  CHECK(contains(refused(v), "has no base"));
  v = c.view, part(v, 0).rows.run_bytes = 6;
  CHECK(contains(refused(v), "whole elements"));
}

TEST_CASE("validate: strides: rows of one component overlap") {
  auto c = some_cache();
  auto v = c.view;
  part(v, 0).rows.slot_stride = 64;  // two heads of 64 bytes lie in a slot
  CHECK(contains(refused(v), "overlap each other"));
  for (std::size_t i = 0; i < 3; ++i) c.entries()[i] = static_cast<std::int32_t>(i);  // neighbours
  c.entries()[3] = 3, c.entries()[4] = 5;
  v = c.view, part(v, 0).rows.page_stride -= 64;
  CHECK(contains(refused(v), "rows of component k overlap each other in page 0 of sequence 0, head 0 and page 1 of "));
  for (std::int32_t i = 0; i < 3; ++i) c.entries()[static_cast<std::size_t>(i)] = 2 * i;  // none
  c.entries()[3] = 6, c.lengths()[1] = 4;
  CHECK(refused(v).empty());
}

TEST_CASE("validate: strides: misaligned base and strides") {
  auto c = some_cache();
  auto v = c.view;
  part(v, 0).rows.offset += 2;
  CHECK(contains(refused(v), "not a multiple of its 4-byte elements"));
  v = c.view, part(v, 1).rows.page_stride += 2;
  CHECK(contains(refused(v), "not a multiple of its 4-byte elements"));
}

TEST_CASE("validate: strides: addresses beyond 64 bits") {
  auto c = some_cache();
  part(c.view, 0).rows.page_stride = std::int64_t{1} << 61;
  CHECK(contains(refused(c.view), "does not fit into 64 bits"));
}

TEST_CASE("validate: components overlap") {
  for (layout const l : {layout::nhd, layout::hnd, layout::x_packed, layout::token_pool, layout::transposed_v}) {
    auto c = some_cache(l);
    auto v = c.view;
    part(v, 1).rows.offset = part(v, 0).rows.offset;
    CHECK(contains(refused(v), "components k and v overlap"));
    v = c.view, part(v, 1).rows.offset -= 4;  // the last element of K
    CHECK(contains(refused(v), "components k and v overlap"));
  }
  layouts::cache<std::byte*> p(layout::pointers, {.lengths = {10}, .page_size = 4});
  p.view.components[2].rows.offset -= 4;
  CHECK(contains(refused(p.view), "components v and position overlap"));
}

TEST_CASE("validate: V as an alias of K, as MLA has it") {
  auto c = some_cache();
  auto v = c.view;
  part(v, 1) = part(v, 0);
  part(v, 1).what = role::v, part(v, 1).rows.run_bytes = 32;
  CHECK(contains(refused(v), "overlap"));
  part(v, 1).alias_of = 0;
  CHECK(refused(v).empty());
  part(v, 1).rows.offset += 36;
  CHECK(contains(refused(v), "do not lie inside"));
  part(v, 1) = c.view.components[1], part(v, 1).alias_of = 0;
  CHECK(contains(refused(v), "do not lie inside"));
  part(v, 1).alias_of = 1;
  CHECK(contains(refused(v), "none or an alias itself"));
  part(v, 1).alias_of = 7;
  CHECK(contains(refused(v), "none or an alias itself"));
}

TEST_CASE("validate: scales behind the rows of a page, as DeepSeek's indexer has them") {
  std::int32_t const P = 64, pages = 3;
  std::vector<std::byte> pool(static_cast<std::size_t>(pages * P * 132));
  std::int32_t const entries[] = {2, 0}, lengths[] = {100};
  layer_view<> v;
  v.pages.entries = entries, v.pages.sequences = 1, v.pages.heads = 1, v.pages.columns = 2, v.pages.page_size = P,
  v.pages.seq_stride = 2;
  v.lengths.data = lengths;
  component k, scale;
  k.rows = {pool.data(), 0, pages, P * 132, 0, 128, 0, 128, 1};
  k.type = dtype::opaque;
  scale.rows = {pool.data(), P * 128, pages, P * 132, 0, 4, 0, 4, 1};
  scale.what = role::k_scale;
  CHECK(refused(v.with(k).with(scale)).empty());
  scale.rows.offset -= 128;
  CHECK(contains(refused(v.with(k).with(scale)), "components k and k_scale overlap"));
}

TEST_CASE("validate: heads as a batch of single-head sequences on an interleaved pool") {
  std::int64_t const P = 4, H = 2, D = 16, E = 4, pages = 5;
  std::vector<float> pool(static_cast<std::size_t>(2 * pages * P * H * D));
  std::int64_t entries[] = {0, 2 * P * H, 0 + 1, 2 * P * H + 1};  // pages 0 and 2, heads 0 and 1
  std::int32_t const lengths[] = {8, 5};
  layer_view<std::int64_t> v;
  v.pages.entries = entries, v.pages.sequences = 2, v.pages.heads = 1, v.pages.columns = 2, v.pages.page_size = P,
  v.pages.seq_stride = 2;
  v.lengths.data = lengths;
  component k, value;
  k.rows = {reinterpret_cast<std::byte*>(pool.data()), 0, (pages - 1) * P * H + H, D * E, 0, H * D * E, 0, D * E, 1};
  value = k, value.what = role::v, value.rows.offset = pages * P * H * D * E;
  CHECK(refused(v.with(k).with(value)).empty());
  entries[1] = 2 * P * H + 2;  // the second slot of page 2: no page starts there, but nobody else is there
  CHECK(refused(v.with(k).with(value)).empty());
  entries[1] = (P - 1) * H;  // the last slot of page 0
  CHECK(contains(refused(v.with(k).with(value)),
                 "rows of component k overlap each other in page 0 of sequence 0, head "
                 "0 and page 1 of sequence 0, head 0: a stride is smaller"));
}

}  // namespace cache_validate_test
