// SPDX-License-Identifier: Apache-2.0
// A stack whose layers have one row of positions a token: it moves with the K and V of all of them, once. For every
// context.
#pragma once

#include <cstring>
#include <numeric>

#include <kvevict/kvevict.hpp>

#include "support/catch.hpp"
#include "support/keep_sets.hpp"

namespace support::common_positions {

/// Where the rows of K and V lie, and whether heads have a position each.
struct shape {
  bool contiguous, table_per_head, position_per_head;
};
constexpr shape shapes[] = {{true, false, false},  {true, true, false},  {true, true, true},
                            {false, false, false}, {false, false, true}, {false, true, true}};

/// Layers, sequences and heads whose rows say whose they are: every K and V, and every position, is a number of its
/// own.
class cache {
 public:
  static constexpr std::int32_t L = 3, S = 2, H = 2, tokens[S] = {19, 10};
  shape how;
  std::vector<std::int32_t> table, lengths;
  std::vector<std::byte> pool;

  explicit cache(shape of) : how(of) {
    for (std::int32_t i = 0; i < pages(); ++i) table.push_back((i * 7 + 3) % pages());
    for (std::int32_t b = 0; b < L * S; ++b) lengths.insert(lengths.end(), H, tokens[b % S]);
    pool.resize(static_cast<std::size_t>(begin(3)));
    auto const v = view();
    each_row([&](std::int32_t b, std::int32_t h) {
      for (std::int32_t t = 0; t < v.length(b, h); ++t)
        for (std::int32_t c = 0; c < 3; ++c) {
          std::int32_t const x = number(c, b, h, t);
          std::memcpy(v.row(v.components[static_cast<std::size_t>(c)], b, h, t), &x, 4);
        }
    });
  }

  kvevict::layer_view<> view() {
    kvevict::layer_view<> v;
    auto& t = v.pages;
    t.sequences = L * S, t.heads = H, t.layers = L, t.page_size = slots(), t.columns = columns();
    t.entries = how.contiguous ? nullptr : table.data();
    t.head_stride = how.table_per_head ? columns() : 0, t.seq_stride = columns() * (how.table_per_head ? H : 1);
    v.lengths = {lengths.data(), H, 1};
    kvevict::role const roles[] = {kvevict::role::k, kvevict::role::v, kvevict::role::position};
    for (std::int32_t c = 0; c < 3; ++c) {
      kvevict::component x;
      x.what = roles[c], x.type = c == 2 ? kvevict::dtype::i32 : kvevict::dtype::f32;
      x.rows.base = pool.data() + begin(c), x.rows.page_count = pages(), x.rows.run_bytes = 4, x.rows.slot_stride = 4;
      x.rows.head_stride = heads_in_page(c) == 1 ? 0 : std::int64_t{slots()} * 4, x.rows.page_stride = page_bytes(c);
      x.rows.layer_stride = c == 2 ? 0 : page_bytes(c) * pages();
      v = v.with(x);
    }
    return v;
  }

  /// What the row of token t says in component c.
  std::int32_t number(std::int32_t c, std::int32_t b, std::int32_t h, std::int32_t t) const {
    return c == 2 ? (b % S * H + (how.position_per_head ? h : 0)) * 1000 + t * 3 : ((c * L * S + b) * H + h) * 100 + t;
  }
  template <class F> static void each_row(F f) {
    for (std::int32_t b = 0; b < L * S; ++b)
      for (std::int32_t h = 0; h < H; ++h) f(b, h);
  }

 private:
  std::int32_t slots() const { return how.contiguous ? 24 : 4; }
  std::int32_t columns() const { return how.contiguous ? 1 : 5; }
  std::int32_t pages() const { return how.contiguous ? S : S * columns() * (how.table_per_head ? H : 1); }
  std::int32_t heads_in_page(std::int32_t c) const {
    return (how.table_per_head && !how.contiguous) || (c == 2 && !how.position_per_head) ? 1 : H;
  }
  std::int64_t page_bytes(std::int32_t c) const { return std::int64_t{heads_in_page(c)} * slots() * 4; }
  std::int64_t begin(std::int32_t c) const {
    std::int64_t sum = 0;
    for (std::int32_t i = 0; i < c; ++i) sum += page_bytes(i) * pages() * (i == 2 ? 1 : L);
    return sum;
  }
};

/// What became of a cache that was compacted.
struct outcome {
  std::string said;
  std::vector<std::byte> pool;
  std::int64_t bytes = 0;
};

/// compact(cache, keep set, how) → outcome.
template <class Compact> void check(std::uint64_t seed, Compact compact) {
  reference::generator random(seed);
  for (shape const how : shapes)
    for (auto const mode : {kvevict::compaction::stable, kvevict::compaction::fill_holes}) {
      CAPTURE(seed, how.contiguous, how.table_per_head, how.position_per_head, static_cast<int>(mode));
      cache before(how), after(how);
      bool const ragged = how.table_per_head && how.position_per_head;  // heads of different counts
      std::vector<std::vector<std::int32_t>> rows;
      for (std::int32_t b = 0; b < cache::L * cache::S; ++b)
        for (std::int32_t h = 0; h < cache::H; ++h) {
          std::int32_t const n = cache::tokens[b % cache::S];
          if (b >= cache::S)
            rows.push_back(rows[static_cast<std::size_t>(b % cache::S * cache::H + h)]);  // of layer 0
          else if (h > 0 && !how.position_per_head)
            rows.push_back(rows.back());
          else
            rows.push_back(random_row(random, n, n / 2 - (ragged ? h : 0)));
        }
      outcome const done = compact(before, keep_of(before.view(), rows), mode);
      REQUIRE(done.said == "");
      after.pool = done.pool;
      auto const v = after.view();
      std::int64_t bytes = 0;
      cache::each_row([&](std::int32_t b, std::int32_t h) {
        auto const& row = rows[static_cast<std::size_t>(b * cache::H + h)];
        auto const at = [&](std::int32_t c, std::size_t slot) {
          std::int32_t x;
          std::memcpy(&x, v.row(v.components[static_cast<std::size_t>(c)], b, h, static_cast<std::int64_t>(slot)), 4);
          return x;
        };
        std::vector<std::int32_t> found;
        std::int64_t moves = 0;
        for (std::size_t s = 0; s < row.size(); ++s) {
          std::int32_t const t = at(0, s) - after.number(0, b, h, 0);
          found.push_back(t);
          CHECK(at(1, s) == after.number(1, b, h, t));
          CHECK(at(2, s) == after.number(2, b, h, t));
          moves += t != static_cast<std::int32_t>(s);
        }
        bool const moves_positions = b < cache::S && (h == 0 || how.position_per_head);
        bytes += moves * (moves_positions ? 12 : 8);
        if (mode == kvevict::compaction::fill_holes) std::sort(found.begin(), found.end());
        CHECK(found == row);
      });
      CHECK(done.bytes == bytes);
    }
}

/// What must be refused, and the cache is as it was. says(policy, cache): the refusal of a plan, or nothing.
template <class Compact, class Says> void refusals(Compact compact, Says says) {
  for (shape const how : shapes) {
    CAPTURE(how.contiguous, how.table_per_head, how.position_per_head);
    cache c(how);
    std::vector<std::vector<std::int32_t>> rows;
    cache::each_row([&](std::int32_t, std::int32_t) { rows.push_back({1, 4, 7, 8}); });
    auto const refuses = [&](std::string const& what) {
      outcome const done = compact(c, keep_of(c.view(), rows), kvevict::compaction::stable);
      CHECK(contains(done.said, what));
      CHECK((done.pool == c.pool));
    };
    rows[9] = rows[8] = {1, 4, 6, 8};  // layer 2, sequence 0
    refuses("sequence 4, head 0 is of layer 2 and moves other tokens than layer 0, but all layers have one row");
    rows[9] = rows[8] = {1, 4, 7, 8};
    if (how.position_per_head) {
      rows[11] = {0, 4, 7, 8};
      refuses("sequence 5, head 1 is of layer 2 and moves other tokens than layer 0");
      for (std::size_t const r : {3U, 7U}) rows[r] = rows[11];
      CHECK(compact(c, keep_of(c.view(), rows), kvevict::compaction::stable).said == "");
    }

    // rows that lose only their ends move nothing, and keep different tokens all the same
    auto const front = [](std::int32_t n) {
      std::vector<std::int32_t> out(static_cast<std::size_t>(n));
      std::iota(out.begin(), out.end(), 0);
      return out;
    };
    std::vector<std::vector<std::int32_t>> const was(rows.size(), front(7));
    rows = was, rows[8] = rows[9] = front(5);
    refuses("sequence 4, head 0 is of layer 2 and moves other tokens than layer 0");
    rows = was;
    for (std::size_t r = 1; r < rows.size(); r += 2) rows[r] = front(5);
    if (how.contiguous && how.table_per_head && !how.position_per_head)
      refuses("heads 0 and 1 of sequence 0 move different tokens");
    rows = was;
    CHECK(compact(c, keep_of(c.view(), rows), kvevict::compaction::stable).said == "");

    // heads whose positions differ cannot be together
    auto const plan_says = [&](auto const& policy) {
      return how.position_per_head ? says(policy, c) : says(policy.with(kvevict::heads::together{}), c);
    };
    auto const one_set = kvevict::presets::keydiff().with(kvevict::layers::together{});
    CHECK(contains(plan_says(kvevict::presets::keydiff()), ".with(layers::together{})"));
    CHECK(plan_says(one_set) == "");

    for (std::size_t h = 0; h < 2; ++h)
      c.lengths[static_cast<std::size_t>(3 * cache::H) + h] = 9;  // layer 1, sequence 1
    std::string const differ = "sequence 3, head 0 is of layer 1 and has 9 tokens, in layer 0 10, but all layers have";
    CHECK(contains(plan_says(one_set), differ));
    for (auto& row : rows) row = {1, 4, 7, 8};
    refuses(differ);
  }
}

}  // namespace support::common_positions
