// SPDX-License-Identifier: Apache-2.0
// A kernel that writes scores, called on a device with rows of its own, and compared with the host.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <kvevict/core/contract.hpp>

#include "simt/device_cache.hpp"
#include "support/catch.hpp"

namespace simt_test {

using namespace kvevict;

inline constexpr float untouched = -7.0f;

/// Rows of scores on a device, every row as long as the longest and `untouched` everywhere.
struct rows_there {
  std::int64_t most, stride;
  on_device<float> values;
  score_rows view;

  rows_there(device_memory& m, score_rows const& s)
      : most(longest(s)),
        stride((most + 3) / 4 * 4),
        values(std::vector<float>(static_cast<std::size_t>(s.count() * stride), untouched)),
        view(s) {
    std::vector<std::int64_t> begin;
    for (std::int64_t r = 0; r <= s.count(); ++r) begin.push_back(r * stride);
    if (s.positions != nullptr) {
      std::vector<std::int32_t> positions(static_cast<std::size_t>(s.count() * stride), -1);
      for (std::int64_t r = 0; r < s.count(); ++r)
        std::copy_n(s.positions + s.begin[r], s.rows[r].tokens, positions.begin() + r * stride);
      view.positions = m.put(positions);
    }
    view.rows = m.put(s.rows, static_cast<std::size_t>(s.count())), view.begin = m.put(begin),
    view.values = values.data();
    view.most_tokens = most, view.total_floats = s.count() * stride;
  }
  static std::int64_t longest(score_rows const& s) {
    std::int64_t n = 1;
    for (std::int64_t r = 0; r < s.count(); ++r) n = std::max<std::int64_t>(n, s.rows[r].tokens);
    return n;
  }
};

/// call(ctx, view, rows, out) on a device; `most_rows` < 0: what the sequences provide.
template <class Cache, class Rows, class Call>
std::vector<float> there(Cache& cache, score_rows const& s, Rows const& rows, Call call, std::int32_t most_rows = -1,
                         std::string* refusal = nullptr) {
  using entry = typename std::decay_t<decltype(cache.view)>::table_entry;
  device_cache<entry> const moved(cache);
  device_memory memory;
  rows_there const out(memory, s);
  cuda::device ctx(default_stream());
  try {
    Rows given = on_device_rows(memory, rows, cache.view.sequences());
    if (most_rows >= 0) given.most_rows = most_rows;
    call(ctx, moved.view, given, out.view);
    ctx.wait();
  } catch (contract_violation const& e) {
    if (refusal == nullptr) throw;
    *refusal = e.what();
    ctx.wait();  // refused once
  }
  return out.values.read();
}

/// The same numbers on host and device, and no float written beside them.
template <class Cache, class Rows, class Call>
void same(Cache& cache, score_rows const& s, Rows const& rows, double relative, Call call) {
  for (std::int64_t r = 0; r < s.count(); ++r) std::fill_n(s.values + s.begin[r], s.rows[r].tokens, untouched);
  kvevict::host host;
  call(host, cache.view, rows, s);
  std::vector<float> const got = there(cache, s, rows, call);
  std::int64_t const stride = (rows_there::longest(s) + 3) / 4 * 4;
  std::size_t wrong = 0;
  for (std::int64_t r = 0; r < s.count(); ++r)
    for (std::int64_t j = 0; j < stride; ++j) {
      double const want = j < s.rows[r].tokens ? double{s.values[s.begin[r] + j]} : double{untouched},
                   x = got[static_cast<std::size_t>(r * stride + j)];
      bool const sound = want != want        ? x != x
                         : want == untouched ? x == want
                                             : std::abs(x - want) <= relative * std::abs(want) + 1e-7;
      if (!sound && wrong == 0) UNSCOPED_INFO("row " << r << " token " << j << ": " << x << " instead of " << want);
      wrong += !sound;
    }
  CHECK(wrong == 0);
}

}  // namespace simt_test
