// SPDX-License-Identifier: Apache-2.0
// What is wrong with views and evidence is refused by both contexts in the same words, case by case.
#include "simt/same_words.hpp"

namespace same_words_test {

using namespace simt_test;

TEST_CASE("both contexts say the same of lengths, prefixes and pages") {
  room r;
  auto& n = r.cache.lengths();
  for (auto const& [wrong, what] : {std::pair(-1, "the length of sequence 1, head 1 is -1"),
                                    std::pair(1000, "sequence 1, head 1 has 1000 tokens, but its table addresses")}) {
    std::int32_t const right = std::exchange(n[3], wrong);
    contents_alike(r.cache, what);
    n[3] = right;
  }
  std::vector<std::int32_t> const fixed{0, 5};
  r.cache.view.read_only = fixed.data();
  contents_alike(r.cache, "read_only[1] = 5 tokens");
  r.cache.view.read_only = nullptr;
  auto& table = r.cache.entries();
  auto const at = [&](int b, int h) {
    return static_cast<std::size_t>(r.cache.view.pages.entries_of(b, h) - table.data());
  };
  auto const sound = table;
  r.cache.view.proof = kvevict::order_proof::by_engine;  // in another's page positions are wrong, too
  auto const says = [&](std::size_t place, std::int32_t id, std::string const& what) {
    table[place] = id;
    contents_alike(r.cache, what);
    table = sound;
  };
  says(at(1, 1) + 1, 1 << 20, "page 1 of sequence 1, head 1 has id 1048576, but component k has");
  says(at(1, 0), -3, "page 0 of sequence 1, head 0 has id -3, but component k has");
  says(at(1, 1) + 1, table[at(1, 1)], "pages 0 and 1 of sequence 1, head 1 are the same page");
  kvevict::host host;
  auto const keep = plan(host, streaming, kvevict::contents(r.cache.view), twenty);
  auto const moves_say = [&](std::size_t place, std::int32_t id, std::string const& what) {
    table[place] = id;
    alike(r.cache, what, [&](auto& on, auto const& view) { on.compact(view, keep, kvevict::compaction::stable); });
    table = sound;
  };
  moves_say(at(1, 1), table[at(0, 1) + 2], "page 0 of sequence 1, head 1 is also page 2 of sequence 0, head 1");
  moves_say(at(0, 0), table[at(1, 1) + 1], "page 1 of sequence 1, head 1 is also page 0 of sequence 0, head 0");
  room shared(layout::hnd);
  shared.cache.view.lengths.head_stride = 1, shared.cache.view.lengths.seq_stride = 2;
  std::vector<std::int32_t> lengths{40, 40, 30, 29};
  shared.cache.lengths() = lengths;
  shared.cache.view.lengths.data = shared.cache.lengths().data();
  contents_alike(shared.cache, "heads 0 and 1 of sequence 1 have 30 and 29 tokens");
  layouts::cache_shape shape;
  shape.lengths = {40, 30}, shape.heads = 2;
  layouts::cache<std::byte*> addresses(layout::pointers, shape);
  std::byte*& entry = addresses.entries()[0];
  std::byte* const page = entry;
  entry = nullptr;
  contents_alike(addresses, "page 0 of sequence 0, head 0 is null");
  entry = page + 1;
  contents_alike(addresses, "page 0 of sequence 0, head 0 is not aligned to the elements of component k");
  entry = page + 4;
  for (std::int32_t const bytes : {16, 0, -16}) {
    addresses.view.pages.alignment = bytes;
    contents_alike(addresses, bytes > 0 ? "page 0 of sequence 0, head 0 is not aligned to 16 bytes; correct the address"
                                        : "pages.alignment is " + std::to_string(bytes) + "; give the bytes");
  }
  addresses.view.pages.alignment = 16;
  entry = addresses.entries()[1];
  contents_alike(addresses, "pages 0 and 1 of sequence 0, head 0 are the same page");
}

TEST_CASE("both contexts say the same of padding that does not end within the rows") {
  room r;
  attention const all = all_rows(r.in);
  auto const says = [&](std::vector<std::int32_t> const& first, std::string const& what) {
    auto const by = [&](auto const& evidence_of) {
      alike(r.cache, what, [&](auto& on, auto const& view) {
        plan(on.ctx, presets::streaming_llm({.sinks = 0}),
             evidence_of(on, view).with_visibility({.first_token = on.put(first)}), twenty);
      });
    };
    by([](auto&, auto const& view) { return contents(view); });
    by([&](auto& on, auto const& view) { return prompt(view, on.rows(all.queries())); });
    by([&](auto& on, auto const& view) { return prompt(view, on.rows(all.rows())); });
  };
  says({0, 31}, "first_token of sequence 1 is 31, and sequence 1, head 0 holds 30 tokens");
  says({-1, 0}, "first_token of sequence 0 is -1, and sequence 0, head 0 holds 40 tokens");
  r.cache.view.order = kvevict::row_order::scattered;
  says({2, 0}, "first_token of sequence 0 is 2, and sequence 0, head 0 holds 40 scattered tokens");
  r.cache.view.order = kvevict::row_order::ascending;
  r.cache.lengths()[2] = r.cache.lengths()[3] = 0;
  says({40, 31}, "");
}

TEST_CASE("both contexts say the same of rows of evidence") {
  room r;
  attention const all = all_rows(r.in), few = last_rows(r.in, 3);
  auto const with = [](auto rows, auto change) { return change(rows), rows; };
  plans_alike(r, snapkv, few.queries(), "sequence 0 provides 3 query rows and the window needs 8");
  plans_alike(r, snapkv, few.rows(), "sequence 0 provides 3 softmax rows and the score reads 8");
  plans_alike(r, h2o, few.queries(), "sequence 0 provides 3 query rows for 40 tokens");
  plans_alike(r, h2o, few.rows(), "sequence 0 provides 3 softmax rows for 40 tokens");
  plans_alike(r, snapkv, with(all.rows(), [](auto& a) { a.slots = 33; }),
              "a softmax row has 33 floats and sequence 0, head 0 40 tokens");
  plans_alike(r, snapkv, with(all.queries(), [](auto& q) { q.heads = 3; }), "3 query heads are not a multiple of 2");
  for (auto const& [begin, what] :
       {std::pair(std::vector<std::int32_t>{-40, 0, 30}, "row_begin starts at -40"),
        std::pair(std::vector<std::int32_t>{0, 40, 30}, "row_begin descends at sequence 1"),
        std::pair(std::vector<std::int32_t>{0, 0, 30}, "sequence 0 provides 0 query rows and the window needs 8")})
    alike(r.cache, what, [&, &begin = begin](auto& on, auto const& view) {
      auto q = on.rows(all.queries());
      q.row_begin = on.put(begin);
      plan(on.ctx, snapkv, prompt(view, q), twenty);
    });
  alike(r.cache, "rows without data", [&](auto& on, auto const& view) {
    auto q = on.rows(all.queries());
    q.data = nullptr;
    plan(on.ctx, snapkv, prompt(view, q), twenty);
  });
  alike(r.cache, "evidence: sequence 1, head 0: the attention weights of row", [&](auto& on, auto const& view) {
    auto lse = all.lse;
    for (std::size_t t = 66; t < 70; ++t) lse[t * 4] = lse[t * 4 + 1] = -30.0f;
    plan(on.ctx, snapkv, prompt(view, on.rows(all.queries())).with_lse(on.put(lse), all.lse_stride(), 1), twenty);
  });
  for (float const wrong : {-0.5f, 1.5f}) {
    attention bad = all;
    bad.weights[bad.weights.size() - 35] = wrong;  // of the last row's last head, which belongs to KV head 1
    plans_alike(r, snapkv, bad.rows(), "evidence: sequence 1, head 1: a softmax weight is above 1 or below 0");
  }
}

}  // namespace same_words_test
