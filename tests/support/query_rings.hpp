// SPDX-License-Identifier: Apache-2.0
// A ring of queries in memory of the test's, and a decoding engine that fills it: any number of rows a step, rejected
// drafts, new requests.
#pragma once

#include <deque>

#include <kvevict/core/query_ring.hpp>

#include "support/batch_cache.hpp"
#include "support/catch.hpp"

namespace support {

/// put(vector, room) → memory of a context.
struct ring_case {
  static constexpr std::size_t B = 3, Hq = 4, D = 8, W = 5;
  reference::generator random;
  std::vector<float> data = std::vector<float>(B * 2 * W * Hq * D, -7.0f);
  std::vector<std::int32_t> positions = std::vector<std::int32_t>(B * 2 * W, -1),
                            begin = std::vector<std::int32_t>(B, 0), count = begin;
  struct row {
    std::int32_t position;
    std::vector<float> q;
  };
  std::deque<row> want[B];
  std::int32_t next[B] = {0, 0, 0};
  // the step's, packed
  std::vector<float> q;
  std::vector<std::int32_t> row_begin, at;

  explicit ring_case(std::uint64_t seed) : random(seed) {}

  kvevict::query_ring ring() {
    return {data.data(), kvevict::dtype::f32, int32(W),     int32(Hq),
            int32(D),    positions.data(),    begin.data(), count.data()};
  }
  kvevict::query_rows step() const {
    kvevict::query_rows out;
    out.data = q.data(), out.heads = int32(Hq), out.head_dim = int32(D);
    out.token_stride = Hq * D, out.head_stride = D;
    out.row_begin = row_begin.data(), out.positions = at.data();
    return out;
  }

  /// Makes a step's rows, and what the ring must hold behind it.
  void advance() {
    q.clear(), at.clear(), row_begin.assign(1, 0);
    for (std::size_t b = 0; b < B; ++b) {
      std::size_t const kind = random.below(8);
      if (kind == 0) next[b] = 0;                                              // another request
      if (kind == 1) next[b] = std::max(0, next[b] - int32(random.below(3)));  // drafts are rejected
      std::size_t const rows = kind == 2 ? 0 : kind == 3 ? W + random.below(9) : 1 + random.below(3);
      while (rows != 0 && !want[b].empty() && want[b].back().position >= next[b]) want[b].pop_back();
      for (std::size_t i = 0; i < rows; ++i) {
        row r{next[b]++, {}};
        for (std::size_t e = 0; e < Hq * D; ++e) r.q.push_back(static_cast<float>(random.normal()));
        q.insert(q.end(), r.q.begin(), r.q.end()), at.push_back(r.position);
        want[b].push_back(std::move(r));
        if (want[b].size() > W) want[b].pop_front();
      }
      row_begin.push_back(int32(at.size()));
    }
    if (q.empty()) q.push_back(0), at.push_back(0);
  }

  void check() {
    kvevict::query_rows const rows = ring().rows();
    for (std::int32_t b = 0; b < int32(B); ++b) {
      auto const& of = want[static_cast<std::size_t>(b)];
      CAPTURE(random.seed(), b);
      REQUIRE(rows.rows(b) == int32(of.size()));
      for (std::int32_t i = 0; i < rows.rows(b); ++i) {
        CHECK(rows.places().position(b, i) == of[static_cast<std::size_t>(i)].position);
        auto const* const got =
            reinterpret_cast<float const*>(rows.data_of(b)) + (rows.first_row(b) + i) * rows.token_stride;
        CHECK(std::equal(got, got + Hq * D, of[static_cast<std::size_t>(i)].q.begin()));
      }
    }
  }
};

}  // namespace support
