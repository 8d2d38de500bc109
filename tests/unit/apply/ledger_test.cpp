// SPDX-License-Identifier: Apache-2.0
// No page that is shared or published is written, whatever is evicted. KVEVICT_EVICTIONS=100000 evicts as often.
#include <kvevict/apply/relocate.hpp>
#include <kvevict/kvevict.hpp>

#include <cstdio>
#include <cstdlib>

#include "support/catch.hpp"
#include "support/keep_sets.hpp"
#include "support/paged_engine.hpp"

namespace apply_ledger_test {

using namespace kvevict;
using reference::generator;

namespace {

std::int64_t evictions_wanted() {
  char const* const text = std::getenv("KVEVICT_EVICTIONS");
  return text == nullptr ? 1200 : std::atoll(text);
}

struct tally {
  std::int64_t evictions = 0, lacking = 0, fresh = 0, dropped = 0, in_place = 0, guarded = 0, moved = 0;
};

template <class Entry> class trial {
 public:
  trial(bool per_head, std::uint64_t seed) : e_(40, per_head, seed), random_(seed + 1) {}

  void step(tally& count) {
    auto& all = e_.sequences;
    switch (random_.below(10)) {
      case 0:
        if (all.size() < 6) e_.start();
        break;
      case 1:
        if (!all.empty() && all.size() < 6) e_.fork(random_.below(all.size()));
        break;
      case 2:
        if (!all.empty()) e_.publish(any());
        break;
      case 3:
        if (random_.below(3) == 0) e_.forget_published();
        break;
      case 4:
        if (!all.empty() && random_.below(3) == 0) e_.end(random_.below(all.size()));
        break;
      case 5:
      case 6:
      case 7:
        for (std::size_t i = random_.below(12); i > 0 && !all.empty(); --i) e_.append(any());
        break;
      default:
        if (!all.empty()) evict(count);
    }
  }

 private:
  using engine = support::paged_engine<Entry>;
  using sequence = typename engine::sequence;

  sequence& any() { return e_.sequences[random_.below(e_.sequences.size())]; }

  /// By a policy, which forks in the view may share, or by chance.
  keep_set keep_of(layer_view<Entry> const& v) {
    bool planned = random_.below(2) == 0;
    for (int b = 0; b < v.sequences(); ++b) planned = planned && v.length(b, 0) == v.length(b, 1);
    if (planned) {
      auto const most = std::int32_t(random_.below(std::size_t(v.length(0, 0)) + 1)) + 2;
      budget const ask{.tokens_per_head = most};
      if (random_.below(2) == 0) return plan(ctx_, presets::random({.seed = random_.bits()}), contents(v), ask);
      return plan(ctx_, presets::streaming_llm({.sinks = std::min(most - 1, 2)}), contents(v), ask);
    }
    std::vector<std::vector<std::int32_t>> rows;
    std::int32_t count = 0;
    for (int b = 0; b < v.sequences(); ++b)
      for (int h = 0; h < v.heads(); ++h) {
        std::int32_t const n = v.length(b, h);
        if (h == 0 || e_.per_head())
          count = random_.below(5) == 0 ? n : std::int32_t(random_.below(std::size_t(n) + 1));
        auto row = support::random_row(random_, n, count);
        if (random_.below(3) == 0)  // the front stays: whole pages of it are to stay where they are
          for (std::int32_t i = 0; i < count * 2 / 3; ++i) row[std::size_t(i)] = i;
        std::sort(row.begin(), row.end());
        if (std::adjacent_find(row.begin(), row.end()) != row.end()) row = support::random_row(random_, n, count);
        rows.push_back(row);
      }
    return support::keep_of(v, rows);
  }

  void evict(tally& count) {
    std::vector<std::size_t> chosen;
    for (std::size_t s = 0; s < e_.sequences.size(); ++s)
      if (random_.below(2) == 0) chosen.push_back(s);
    if (chosen.empty() || random_.below(2) == 0) chosen.assign(1, random_.below(e_.sequences.size()));
    auto const view = e_.view(chosen, random_.below(2) == 0);
    keep_set const keep = keep_of(view);
    auto const before = e_.counts;
    auto const pool = e_.pool;
    relocate(ctx_, view, keep, e_.ledger, done_);
    ++count.evictions;
    std::vector<std::int32_t> released;
    std::int64_t const fresh = expected_fresh(chosen, keep, before, released);
    if (!done_.ok()) {
      REQUIRE(done_.missing_pages() == fresh - std::int64_t(before.free.size()));
      REQUIRE((e_.pool == pool && std::is_permutation(before.free.begin(), before.free.end(), e_.counts.free.begin(),
                                                      e_.counts.free.end())));
      ++count.lacking;
    } else {
      REQUIRE(done_.acquired().size == fresh);
      expect_released(released);
      take_table(chosen, keep, before, count);
      count.fresh += fresh, count.dropped += std::int64_t(released.size()) - fresh, count.moved += done_.bytes_moved();
    }
    bool untouched = true;  // guard copies
    for (std::int32_t page = 0; page < e_.pages(); ++page) {
      auto const i = std::size_t(page), bytes = pool.size() / std::size_t(e_.pages());
      if (before.references(page) < 2 && !before.published(page)) continue;
      untouched = untouched &&
                  std::equal(pool.begin() + std::ptrdiff_t(i * bytes), pool.begin() + std::ptrdiff_t((i + 1) * bytes),
                             e_.pool.begin() + std::ptrdiff_t(i * bytes));
      ++count.guarded;
    }
    REQUIRE(untouched);
    REQUIRE(e_.counted());
    bool sound = true;
    for (sequence const& s : e_.sequences) sound = sound && e_.sound(s);
    REQUIRE(sound);
  }

  bool stays_as_it_is(sequence const& s, std::size_t table, std::int32_t j, keep_set const& keep, std::size_t b) const {
    for (std::int32_t h = 0; h < engine::H; ++h) {
      if (e_.per_head() && std::size_t(h) != table) continue;
      auto const kept = keep(std::int32_t(b), h);
      for (std::int32_t t = j * engine::P; t < (j + 1) * engine::P; ++t)
        if (t < e_.length(s, table) && (t >= kept.size || kept[t] != t)) return false;
    }
    return true;
  }
  /// Page by page: a page of kept tokens stays if all that it holds stays in place, or if it is the row's own.
  std::int64_t expected_fresh(std::vector<std::size_t> const& chosen, keep_set const& keep,
                              support::page_counts const& before, std::vector<std::int32_t>& released) const {
    std::int64_t fresh = 0;
    for (std::size_t b = 0; b < chosen.size(); ++b) {
      sequence const& s = e_.sequences[chosen[b]];
      for (std::size_t table = 0; table < s.tables.size(); ++table)
        for (std::size_t j = 0; j < s.tables[table].size(); ++j) {
          std::int32_t const page = s.tables[table][j], at = std::int32_t(j);
          bool const holds = at * engine::P < keep(std::int32_t(b), std::int32_t(table)).size;
          bool const stays = holds && (stays_as_it_is(s, table, at, keep, b) || before.writable(page));
          if (!stays) released.push_back(page);
          fresh += holds && !stays;
        }
    }
    return fresh;
  }
  void expect_released(std::vector<std::int32_t> wanted) {
    std::vector<std::int32_t> got;
    for (Entry const p : done_.released()) got.push_back(e_.number(p));
    std::sort(got.begin(), got.end()), std::sort(wanted.begin(), wanted.end());
    REQUIRE(got == wanted);
  }

  void take_table(std::vector<std::size_t> const& chosen, keep_set const& keep, support::page_counts const& before,
                  tally& count) {
    for (std::size_t b = 0, row = 0; b < chosen.size(); ++b) {
      sequence& s = e_.sequences[chosen[b]];
      for (auto& table : s.tables) {
        std::vector<std::int32_t> next;
        for (Entry const p : done_.entries(std::int64_t(row))) next.push_back(e_.number(p));
        ++row;
        for (std::size_t j = 0; j < next.size(); ++j)
          if (next[j] != table[j])
            REQUIRE((before.references(next[j]) == 0 && !before.published(next[j])));
          else
            count.in_place += before.writable(next[j]);
        table = next;
      }
      for (std::int32_t h = 0; h < engine::H; ++h) {
        auto& tokens = s.rows[std::size_t(h)];
        auto const kept = keep(std::int32_t(b), h);
        REQUIRE(done_.length(std::int32_t(b), h) == kept.size);
        std::vector<typename engine::token> next;
        for (std::int32_t const t : kept) next.push_back(tokens[std::size_t(t)]);
        bool const cut = next.size() != tokens.size();
        tokens = next;
        auto const& table = s.tables[e_.per_head() ? std::size_t(h) : 0];
        if (cut && tokens.size() % engine::P != 0) REQUIRE(e_.counts.writable(table.back()));
      }
    }
  }

  engine e_;
  generator random_;
  host ctx_;
  relocated<Entry> done_;
};

template <class Entry> void evict_at_random(std::int64_t wanted, tally& all) {
  tally count;
  for (std::uint64_t seed = 0; count.evictions < wanted; ++seed) {
    trial<Entry> t(seed % 2 != 0, seed);
    CAPTURE(seed);
    for (int step = 0; step < 400 && count.evictions < wanted; ++step) t.step(count);
  }
  all.evictions += count.evictions, all.lacking += count.lacking, all.fresh += count.fresh;
  all.dropped += count.dropped, all.in_place += count.in_place, all.guarded += count.guarded, all.moved += count.moved;
}

}  // namespace

TEST_CASE("ledger: no shared or published page is ever written, every token of every row is what it was") {
  tally count;
  std::int64_t const wanted = evictions_wanted();
  evict_at_random<std::int32_t>(wanted - 2 * (wanted / 3), count);
  evict_at_random<std::int64_t>(wanted / 3, count);
  evict_at_random<std::byte*>(wanted / 3, count);
  CHECK(count.evictions == wanted);
  CHECK(count.lacking > 0);
  CHECK(count.fresh > 0);
  CHECK(count.dropped > 0);
  CHECK(count.in_place > 0);
  if (std::getenv("KVEVICT_EVICTIONS") != nullptr)
    std::printf(
        "%lld evictions, %lld of them without enough pages: %lld pages dropped, %lld relocated, %lld kept in "
        "place, %lld bytes moved; %lld guard copies of shared and published pages, none written\n",
        static_cast<long long>(count.evictions), static_cast<long long>(count.lacking),
        static_cast<long long>(count.dropped), static_cast<long long>(count.fresh),
        static_cast<long long>(count.in_place), static_cast<long long>(count.moved),
        static_cast<long long>(count.guarded));
}

}  // namespace apply_ledger_test
