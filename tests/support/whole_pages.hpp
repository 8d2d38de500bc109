// SPDX-License-Identifier: Apache-2.0
// Paged caches whose plans keep whole pages, and what each row must keep then, naively; for every context.
#pragma once

#include <deque>
#include <map>

#include <kvevict/kvevict.hpp>

#include "support/catch.hpp"
#include "support/keep_sets.hpp"
#include "support/random.hpp"
#include "support/together.hpp"
#include "support/turns.hpp"

namespace support::whole_pages {

/// L layers of S sequences and H heads in pages of P slots, one float a key; a table for every head, for all heads of a
/// layer, or one for all layers.
struct model {
  std::int32_t L = 1, S = 1, H = 1, P = 4, columns = 0;
  bool per_head = true, layers_share = false;
  std::vector<std::int32_t> lengths;  // (L·S·H)
  std::vector<std::int32_t> table;    // (L or 1, S, H or 1, columns)
  std::int32_t pool = 0;

  [[nodiscard]] std::size_t rows() const { return static_cast<std::size_t>(L * S * H); }
  [[nodiscard]] std::int32_t N(std::size_t r) const { return lengths[r]; }
  [[nodiscard]] std::int32_t full(std::size_t r) const { return N(r) / P; }
  [[nodiscard]] std::int32_t rest(std::size_t r) const { return N(r) % P; }

  void make_table(reference::generator& random) {
    columns = 1 + *std::max_element(lengths.begin(), lengths.end()) / P;
    std::int32_t const n = (layers_share ? 1 : L) * S * (per_head ? H : 1) * columns;
    table.clear();
    for (std::int32_t i = 0; i < n; ++i) table.push_back(i);
    for (std::size_t i = table.size(); i > 1; --i) std::swap(table[i - 1], table[random.below(i)]);
    pool = n;
  }
  /// `put(vector)`: its copy in the context's memory. Keys are floats that tell layer, page, head and slot apart.
  template <class Put> kvevict::layer_view<> view(Put put) const {
    kvevict::layer_view<> v;
    v.pages.entries = put(table);
    v.pages.sequences = L * S, v.pages.heads = H, v.pages.page_size = P, v.pages.columns = columns;
    v.pages.layers = L, v.pages.head_stride = per_head ? columns : 0;
    v.pages.seq_stride = std::int64_t{columns} * (per_head ? H : 1);
    v.pages.layer_stride = layers_share ? 0 : S * v.pages.seq_stride;
    v.lengths = {put(lengths), H, 1};
    kvevict::component k;
    std::int64_t const page = std::int64_t{P} * 4 * H;
    std::vector<std::int32_t> const keys(static_cast<std::size_t>(pool * P * H * (layers_share ? L : 1)));
    k.rows.base = reinterpret_cast<std::byte*>(put(keys));
    k.rows.page_count = pool, k.rows.run_bytes = 4, k.rows.slot_stride = 4, k.rows.head_stride = std::int64_t{P} * 4;
    k.rows.page_stride = page, k.rows.layer_stride = layers_share ? page * pool : 0;
    k.what = kvevict::role::k, k.type = kvevict::dtype::f32;
    return v.with(k);
  }
};

inline model random_model(reference::generator& random, std::int32_t most_tokens) {
  model m;
  m.L = 1 + static_cast<std::int32_t>(random.below(3)), m.S = 1 + static_cast<std::int32_t>(random.below(2));
  m.H = 1 + static_cast<std::int32_t>(random.below(4));
  std::int32_t const sizes[] = {1, 2, 3, 4, 5, 8, 16};
  m.P = sizes[random.below(7)];
  for (std::size_t r = 0; r < m.rows(); ++r)
    m.lengths.push_back(static_cast<std::int32_t>(random.below(static_cast<std::size_t>(most_tokens))));
  m.make_table(random);
  return m;
}

/// The full pages of a row that stay, ascending; the tokens kept are those of whole pages, with the part-filled one.
inline std::vector<std::int32_t> pages_of(model const& m, std::size_t r, kvevict::keep_set const& keep) {
  auto const kept = keep.row(static_cast<std::int64_t>(r));
  std::vector<std::int32_t> pages, tokens;
  for (std::int32_t const t : kept)
    if (t / m.P < m.full(r) && (pages.empty() || pages.back() != t / m.P)) pages.push_back(t / m.P);
  for (std::int32_t const p : pages)
    for (std::int32_t i = 0; i < m.P; ++i) tokens.push_back(p * m.P + i);
  for (std::int32_t t = m.full(r) * m.P; t < m.N(r); ++t) tokens.push_back(t);
  CHECK(tokens == std::vector<std::int32_t>(kept.begin(), kept.end()));
  return pages;
}

/// Page p of row r has one of the `front` first or `back` newest tokens.
inline bool holds_protected(model const& m, std::size_t r, std::int32_t p, std::int64_t front, std::int64_t back) {
  for (std::int64_t t = std::int64_t{p} * m.P; t < std::int64_t{p + 1} * m.P; ++t)
    if (t < front || t >= m.N(r) - back) return true;
  return false;
}
/// Tokens that stay in any case.
inline std::int64_t tokens_that_stay(model const& m, std::size_t r, std::int64_t front, std::int64_t back) {
  std::int64_t sum = m.rest(r);
  for (std::int32_t p = 0; p < m.full(r); ++p) sum += holds_protected(m, r, p, front, back) ? m.P : 0;
  return sum;
}

/// What is asked of a cut unit, as sums over its rows.
struct unit {
  std::int64_t tokens = 0, budget = 0, rests = 0;
  bool too_small = false;  // of a row's pages that stay in any case
  std::vector<std::size_t> rows;

  [[nodiscard]] bool cut() const { return tokens > budget; }
  [[nodiscard]] std::int64_t kept(std::int32_t P) const { return cut() ? rests + (budget - rests) / P * P : tokens; }
};

/// The rows among which a policy moves budget: a row; the heads of a layer; of pyramids a head's, or all, layers.
inline std::map<std::vector<std::int32_t>, unit> units_of(model const& m, turns::kind const& k, std::int32_t budget) {
  std::map<std::vector<std::int32_t>, unit> out;
  for (std::int32_t l = 0; l < m.L; ++l)
    for (std::int32_t s = 0; s < m.S; ++s)
      for (std::int32_t h = 0; h < m.H; ++h) {
        auto const r = static_cast<std::size_t>((l * m.S + s) * m.H + h);
        unit& u = out[{k.over_layers || k.by_scores ? 0 : l, s, k.over_heads ? 0 : h}];
        u.tokens += m.N(r), u.budget += budget, u.rests += m.rest(r), u.rows.push_back(r);
        u.too_small = u.too_small || (tokens_that_stay(m, r, k.front, k.recent) > budget);
      }
  return out;
}

/// What the policy's protection asks of a row that is cut: full pages at its front; the newest ones, those of a share
/// of the budget as far as this goes.
inline void expect_protected(model const& m, std::size_t r, turns::kind const& k, std::int32_t budget,
                             std::vector<std::int32_t> const& kept) {
  std::int64_t const share = k.ends(budget) - k.front;
  std::int64_t front = 0, recent = 0, newest = 0;
  for (std::int32_t p = 0; p < m.full(r); ++p)
    if (holds_protected(m, r, p, k.front, 0)) {
      CHECK(std::binary_search(kept.begin(), kept.end(), p));
      ++front;
    }
  for (std::int32_t p = 0; p < m.full(r); ++p) {
    recent += holds_protected(m, r, p, 0, k.recent) ? 1 : 0;
    newest += holds_protected(m, r, p, 0, share) ? 1 : 0;
  }
  std::int64_t const room = (budget - m.rest(r)) / m.P - front;
  for (std::int64_t i = 1; i <= std::max(recent, std::min(newest, room)); ++i)
    CHECK(std::binary_search(kept.begin(), kept.end(), m.full(r) - static_cast<std::int32_t>(i)));
}

/// Evictable pages: no page that goes is better than one that stays.
template <class Score>
void expect_best(model const& m, std::size_t r, std::int64_t front, std::int64_t back,
                 std::vector<std::int32_t> const& kept, Score score) {
  for (std::int32_t const in : kept)
    for (std::int32_t out = 0; out < m.full(r); ++out) {
      if (holds_protected(m, r, in, front, back) || std::binary_search(kept.begin(), kept.end(), out)) continue;
      double const a = score(r, in), b = score(r, out);
      bool const sound = a > b - 1e-6 && (a != b || in > out);
      if (!sound) CHECK((in == out && a == b));
    }
}

inline double noise_of(model const& m, std::uint64_t seed, std::size_t r, std::int32_t token) {
  float x = 0;
  kvevict::row in{};
  in.sequence = static_cast<std::int32_t>(r) / m.H, in.head = static_cast<std::int32_t>(r) % m.H;
  turns::noise::hash{seed}(in, token, x);
  return static_cast<double>(x);
}

/// A plan, or what it says.
struct answer {
  kvevict::keep_set keep;
  std::string refused;
};

/// The promises of select::pages for one policy whose scores are turns::noise{17}. plan(policy, view, budget) → answer.
template <class Policy, class Put, class Plan>
void check(Policy const& tokens, std::uint64_t seed, Put put, Plan plan, std::int64_t& planned) {
  reference::generator random(seed);
  model const m = random_model(random, 70);
  auto const reduce = random.below(2) == 0 ? kvevict::page_reduce::mean : kvevict::page_reduce::max;
  auto const policy = tokens.with(kvevict::select::pages{reduce});
  turns::kind const k = turns::kind::of(policy);
  auto const view = m.view(put).with_capability({.whole_pages = true});
  for (int i = 0; i < 4; ++i) {
    std::int32_t const budget = 1 + static_cast<std::int32_t>(random.below(i == 0 ? 12 : 60));
    CAPTURE(seed, m.L, m.S, m.H, m.P, m.lengths, budget, static_cast<int>(reduce));
    auto const units = units_of(m, k, budget);
    bool refused = false;
    for (auto const& [name, u] : units) refused = refused || (!k.unlimited && u.too_small && (u.cut() || k.cap));
    kvevict::budget const ask{.tokens_per_head = budget, .layer_count = m.L};
    answer const got = plan(policy, view, ask);
    INFO(got.refused);
    REQUIRE(refused == !got.refused.empty());
    if (refused) {
      CHECK(contains(got.refused, m.P == 1 ? "protected tokens" : "that stay whole"));
      continue;
    }
    ++planned;
    auto const score = [&](std::size_t r, std::int32_t page) {
      double sum = 0, most = 0;
      for (std::int32_t j = page * m.P; j < (page + 1) * m.P; ++j) {
        double const x = noise_of(m, 17, r, j);
        sum += x / m.P, most = std::max(most, x);
      }
      return reduce == kvevict::page_reduce::mean ? sum : most;
    };
    for (auto const& [name, u] : units) {
      std::int64_t kept = 0;
      for (std::size_t const r : u.rows) {
        auto const pages = pages_of(m, r, got.keep);
        kept += got.keep.row(static_cast<std::int64_t>(r)).size;
        if (k.unlimited || !u.cut()) continue;
        if (!k.over_layers && !k.by_scores) expect_protected(m, r, k, budget, pages);
        if (k.recent_permille == 0) expect_best(m, r, k.front, k.recent, pages, score);
      }
      CHECK(kept == (k.unlimited ? u.tokens : u.kept(m.P)));
    }
  }
}

// --- few pages, all sets of them

/// A page as the total order sees it.
struct page {
  double score;
  std::int32_t index;
  std::size_t row;

  friend bool operator<(page const& a, page const& b) {  // the worse one first
    if (a.score != b.score) return a.score < b.score;
    if (a.index != b.index) return a.index < b.index;
    return a.row > b.row;
  }
  friend bool operator==(page const& a, page const& b) { return !(a < b) && !(b < a); }
};

/// Of all sets of `count` of them the best: the largest sum, and among equal sums the best one by one.
inline std::vector<page> best_set(std::vector<page> const& all, std::int64_t count) {
  std::vector<page> best;
  double most = -1e300;
  for (std::uint32_t set = 0; set < 1U << all.size(); ++set) {
    std::vector<page> here;
    double sum = 0;
    for (std::size_t i = 0; i < all.size(); ++i)
      if ((set >> i & 1U) != 0) here.push_back(all[i]), sum += all[i].score;
    if (static_cast<std::int64_t>(here.size()) != count || sum < most) continue;
    std::sort(here.rbegin(), here.rend());
    bool const better = sum > most || std::lexicographical_compare(best.begin(), best.end(), here.begin(), here.end());
    if (better) best = here, most = sum;
  }
  return best;
}

/// Rows, heads that share a budget without a floor, and sets in common, against all sets of pages. Scores are few, so
/// that ties decide; means of 2 or 4 small integers are exact.
template <class Put, class Plan> void check_all_sets(std::uint64_t seed, Put put, Plan plan) {
  reference::generator random(seed);
  model m;
  m.L = 1 + static_cast<std::int32_t>(random.below(2)), m.H = 1 + static_cast<std::int32_t>(random.below(2));
  m.P = random.below(2) == 0 ? 2 : 4;
  int const how = static_cast<int>(seed % 4);  // rows, heads share, heads together, all together
  auto const same = static_cast<std::int32_t>(random.below(6 * static_cast<std::size_t>(m.P)));
  for (std::size_t r = 0; r < m.rows(); ++r)
    m.lengths.push_back(how >= 2 ? same : static_cast<std::int32_t>(random.below(6 * static_cast<std::size_t>(m.P))));
  m.per_head = how < 2, m.layers_share = how == 3;
  m.make_table(random);
  std::size_t const room = 6 * static_cast<std::size_t>(m.P);
  std::vector<float> scores;
  for (std::size_t i = 0; i < m.rows() * room; ++i) scores.push_back(static_cast<float>(random.below(4)));
  std::vector<std::int32_t> const read_only(static_cast<std::size_t>(m.L * m.S),
                                            random.below(2) == 0 ? 0 : m.P);  // a page
  auto const reduce = random.below(2) == 0 ? kvevict::page_reduce::mean : kvevict::page_reduce::max;
  kvevict::policy const plain{together::given{put(scores), static_cast<std::int64_t>(room)},
                              kvevict::protect{.sinks = static_cast<std::int32_t>(random.below(3)),
                                               .recent = static_cast<std::int32_t>(random.below(3))}};
  auto const paged = plain.with(kvevict::select::pages{reduce});
  auto const budget = 1 + static_cast<std::int32_t>(random.below(room));
  kvevict::budget const ask{.tokens_per_head = budget, .layer_count = m.L};
  auto const view =
      m.view(put).with_read_only(put(read_only)).with_capability({.whole_pages = true, .rows_move = false});
  CAPTURE(seed, how, m.L, m.H, m.P, m.lengths, budget, static_cast<int>(reduce), read_only, scores);
  CAPTURE(paged.protect.sinks, paged.protect.recent);
  std::int64_t const front = std::max(paged.protect.sinks, read_only[0]), back = paged.protect.recent;

  // groups of rows that compete, or that keep one set; their pages
  turns::kind k = turns::kind::of(paged);
  k.over_heads = how == 1, k.front = static_cast<std::int32_t>(front);
  auto const units = units_of(m, k, budget);
  bool refused = false;
  for (auto const& [name, u] : units) refused = refused || (u.cut() && u.too_small);
  answer const got = how == 0   ? plan(paged, view, ask)
                     : how == 1 ? plan(paged.with(kvevict::heads::adaptive{.floor_permille = 0}), view, ask)
                     : how == 2
                         ? plan(paged.with(kvevict::heads::together{}), view, ask)
                         : plan(paged.with(kvevict::heads::together{}).with(kvevict::layers::together{}), view, ask);
  INFO(got.refused);
  REQUIRE(refused == !got.refused.empty());
  if (refused) return;
  auto const of_tokens = [&](std::size_t r, std::int32_t p) {
    double sum = 0, most = 0;
    for (std::int32_t j = p * m.P; j < (p + 1) * m.P; ++j) {
      auto const x = static_cast<double>(scores[r * room + static_cast<std::size_t>(j)]);
      sum += x / m.P, most = std::max(most, x);
    }
    return reduce == kvevict::page_reduce::mean ? sum : most;
  };
  auto const score = [&](std::size_t r, std::int32_t p) {
    double sum = 0;
    std::size_t rows = 0, heads = static_cast<std::size_t>(m.H);
    for (std::size_t other = 0; other < m.rows(); ++other)
      if (how < 2 ? other == r : how == 3 || other / heads == r / heads) sum += of_tokens(other, p), ++rows;
    return sum / static_cast<double>(rows);
  };
  for (auto const& [name, u] : units) {
    std::vector<page> candidates;
    std::int64_t stay = 0;
    std::map<std::size_t, std::vector<std::int32_t>> want;
    for (std::size_t const r : u.rows)
      for (std::int32_t p = 0; p < m.full(r); ++p)
        if (!u.cut() || holds_protected(m, r, p, front, back))
          want[r].push_back(p), ++stay;
        else
          candidates.push_back({score(r, p), p, r});
    if (u.cut())
      for (page const& it : best_set(candidates, (u.budget - u.rests) / m.P - stay)) want[it.row].push_back(it.index);
    for (std::size_t const r : u.rows) {
      std::sort(want[r].begin(), want[r].end());
      CAPTURE(r);
      CHECK(pages_of(m, r, got.keep) == want[r]);
    }
  }
}

// --- what is refused

/// refused(policy, view, budget, what): plan says so; empty: it plans.
template <class Refused> void refusals(Refused refused) {
  std::deque<std::vector<std::byte>> memory;
  auto const put = [&](auto const& x) { return together::keep_bytes(memory, x); };
  reference::generator random(5);
  model m;
  m.L = 2, m.S = 2, m.H = 2, m.P = 8;
  m.lengths.assign(8, 43);
  m.make_table(random);
  model shared = m, one_table = m;
  shared.per_head = false, shared.make_table(random);
  one_table.per_head = false, one_table.layers_share = true, one_table.make_table(random);
  kvevict::policy const tokens{turns::noise{3}, kvevict::protect{.sinks = 3, .recent = 6}};
  auto const by_page = tokens.with(kvevict::select::pages{});
  auto const one_set = by_page.with(kvevict::heads::together{});
  kvevict::budget const ask{.tokens_per_head = 27, .layer_count = 2};
  kvevict::capability const pages{.whole_pages = true}, fixed{.rows_move = false};

  for (auto const& can : {pages, fixed}) {
    refused(tokens, m.view(put).with_capability(can), ask,
            "gives up whole pages of 8 tokens only (capability, or scales that cover a page), but the policy keeps "
            "single tokens; add .with(select::pages{}) and apply its keep sets by drop_pages");
    refused(by_page, m.view(put).with_capability(can), ask, "");
    refused(by_page.with(kvevict::heads::adaptive{}), m.view(put).with_capability(can), ask, "");
    refused(by_page, shared.view(put).with_capability(can), ask, "add .with(heads::together{})");
    refused(one_set, shared.view(put).with_capability(can), ask, "");
    refused(one_set, one_table.view(put).with_capability(can), ask, ".with(layers::together{})");
    refused(one_set.with(kvevict::layers::together{}), one_table.view(put).with_capability(can), ask, "");
  }
  refused(by_page, shared.view(put), ask, "");  // rows move
  auto scales = m.view(put);
  scales.components[0].scope = kvevict::quant_scope::page_channel;
  refused(tokens, scales, ask, "add .with(select::pages{}) and apply its keep sets by drop_pages");
  refused(by_page, scales, ask, "");
  refused(tokens, scales.with_capability({.masked = true}), ask, "");
  auto scattered = m.view(put);
  kvevict::component positions = scattered.components[0];
  positions.what = kvevict::role::position, positions.type = kvevict::dtype::i32;
  std::vector<std::int32_t> const ages(static_cast<std::size_t>(m.pool * m.P * m.H));
  positions.rows.base = reinterpret_cast<std::byte*>(put(ages));
  refused(by_page, scattered.with(positions).with_order(kvevict::row_order::scattered), ask,
          "select::pages keeps the newest pages, but the rows are scattered");
  auto flat = m.view(put);
  flat.pages.entries = nullptr, flat.pages.page_size = 64, flat.pages.layer_stride = 0;
  flat.components[0].rows.page_count = 2;
  std::vector<std::int32_t> const keys(2 * 2 * 2 * 64);
  flat.components[0].rows.base = reinterpret_cast<std::byte*>(put(keys));
  flat.components[0].rows.head_stride = 64 * 4, flat.components[0].rows.page_stride = 2 * 64 * 4;
  flat.components[0].rows.layer_stride = 2 * 2 * 64 * 4;
  refused(by_page, flat, ask, "select::pages needs a page table, but the cache is contiguous");
  // 8 at the front, 8 + 3 at the end; 3 sinks and 6 recent tokens would be 9
  refused(by_page, m.view(put), {.tokens_per_head = 19, .layer_count = 2}, "");
  refused(
      by_page, m.view(put), {.tokens_per_head = 18, .layer_count = 2},
      "a budget of 18 tokens is below the 19 tokens of sequence 0 in pages of 8 that stay whole (3 protected tokens "
      "at the front, 6 recent, the part-filled page); raise tokens_per_head to 21, which does at every length");
  refused(tokens, m.view(put), {.tokens_per_head = 18, .layer_count = 2}, "");
  refused(by_page.with(kvevict::layers::pyramid{}), m.view(put), {.tokens_per_head = 18, .layer_count = 2},
          "below the 19 tokens of sequence 0 in pages of 8");
  refused(by_page.with(kvevict::layers::pyramid{}), m.view(put), {.tokens_per_head = 19, .layer_count = 2}, "");
}

}  // namespace support::whole_pages
