// SPDX-License-Identifier: Apache-2.0
// Why a policy keeps a token, or does not.
#pragma once

#include <cstdint>
#include <string>

#include <kvevict/policy.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace measure {

/// What decided about a token.
enum class rule : std::uint8_t {
  kept_whole,   // its row fits its budget, or is none that the plan cuts
  read_only,    // of a prefix that others share
  sinks,        // one of the first tokens; where pages stay whole, in a page with one
  recent,       // one of the newest, the same
  part_filled,  // in the last page, where pages stay whole
  unseen,       // no later row sees it: evicted
  chosen,       // kept by its score, or with its page or chunk
  evicted       // by its score
};

constexpr char const* name_of(rule why) {
  switch (why) {
    case rule::kept_whole: return "kept, its row is kept whole";
    case rule::read_only: return "kept, it is of a read-only prefix";
    case rule::sinks: return "kept, it is one of the sinks";
    case rule::recent: return "kept, it is one of the recent tokens";
    case rule::part_filled: return "kept, it is in a part-filled last page";
    case rule::unseen: return "evicted, no later row sees it";
    case rule::chosen: return "kept, it was chosen";
    default: return "evicted";
  }
}

/// One token of a plan. What has no score, because its row is kept whole or it is protected, has rank 0.
struct explanation {
  std::int32_t sequence = 0, head = 0, token = 0, position = 0;
  rule why = rule::kept_whole;
  bool is_kept = true;
  float score = 0;              // its own; where pages stay whole, its page's
  std::int64_t rank = 0;        // 1: the best of its row's evictable tokens (pages) in the one total order
  std::int64_t candidates = 0;  // of these there are so many
  std::int64_t quota = 0;       // and so many stay
  float threshold = __builtin_inff();  // the least score of those; infinite where none stays
};

/// In words, for a log.
inline std::string text_of(explanation const& e) {
  std::string out = contract::text_of(messages::row(e.sequence, e.head)) + ", token " + contract::number(e.token) +
                    " at position " + contract::number(e.position) + ": " + name_of(e.why);
  if (e.rank == 0) return out;
  out += "; score " + contract::number(e.score) + ", rank " + contract::number(e.rank) + " of " +
         contract::number(e.candidates) + ", of which " + contract::number(e.quota) + " stay";
  if (e.quota != 0) out += ", the least of them with " + contract::number(e.threshold);
  return out;
}

/// What protects a token, or rule::evicted where it may be evicted. `order`: a token's, or its page's.
template <class Entry>
rule protecting_rule(layer_view<Entry> const& cache, score_rows const& rows, std::int64_t r, std::int32_t token,
                     std::int64_t of_rows) {
  row const& it = rows.rows[r];
  if (!it.active) return rule::kept_whole;
  if (token < cache.read_only_tokens(it.sequence)) return rule::read_only;
  if (of_rows >= it.tokens) return rule::part_filled;
  std::int32_t const order = rows.order(r, of_rows);
  if (it.candidates != 0 && rows.evictable(r, of_rows)) return rule::evicted;
  if (it.candidates != 0 || rows.positions == nullptr) return order < it.first ? rule::sinks : rule::recent;
  std::int32_t before = 0;  // an empty interval is one of ranks
  for (std::int32_t j = 0; j < it.tokens; ++j) before += rows.order(r, j) < order;
  return before < it.first ? rule::sinks : rule::recent;
}

/// Rank, threshold and counts of an evictable token (page) of row r; `stays(j)`: whether token (page) j does.
template <class Stays>
void rank_token(explanation& out, score_rows const& rows, std::int64_t r, std::int64_t at, Stays stays) {
  row const& it = rows.rows[r];
  out.score = rows.values[rows.begin[r] + at], out.candidates = it.candidates, out.rank = 1;
  for (std::int64_t j = 0; j < it.tokens; ++j) {
    if (!rows.evictable(r, j)) continue;
    float const x = rows.values[rows.begin[r] + j];
    std::int32_t const mine = rows.order(r, at), other = rows.order(r, j);
    out.rank += x > out.score || (x == out.score && (other > mine || (other == mine && j > at)));
    if (!stays(j)) continue;
    ++out.quota;
    if (x < out.threshold) out.threshold = x;
  }
}

/// A slot of a row of the view.
struct token_of {
  std::int32_t sequence = 0, head = 0, token = 0;
};

/// What plan(ctx, p, e, b) does to one token, and why; plans once more, so that a log may ask after the fact. Of
/// several scores it tells the first one's, by which alone a token need not stay.
///
///   REQUIRE(measure::explain(ctx, policy, evidence, budget, {0, 2, 17}).why == measure::rule::sinks)
///
/// Cost     plan()'s, its first score's once more, and O(N). Allocates a keep set.
/// Errors   contract_violation: as plan(); a token that the view does not hold.
template <class Policy, class Evidence>
explanation explain(host& ctx, Policy const& p, Evidence const& e, budget const& b, token_of const& at) {
  contract::expect_types<host, Policy, Evidence>();
  contract::expect_stages<host, Policy, Evidence>();
  contract::validate("plan", ctx, p, e, b);
  KVEVICT_EXPECTS(at.sequence >= 0 && at.sequence < e.cache.sequences() && at.head >= 0 && at.head < e.cache.heads() &&
                      at.token >= 0 && at.token < e.cache.length(at.sequence, at.head),
                  "explain: there is no token ", at.token, " of sequence ", at.sequence, ", head ", at.head,
                  "; give a slot of a row of the view");
  contract::expect_fit(ctx, e.cache, b, contract::keeps(p));
  keep_set keep;
  frame scratch(ctx.scratch());
  planning::choose(ctx, scratch, p, e, contract::budgeted_rows(ctx, scratch, p, e, b), keep);
  score_rows const rows = planning::first_ranked(ctx, scratch, p, e, contract::budgeted_rows(ctx, scratch, p, e, b));
  std::int64_t const r = std::int64_t{at.sequence} * e.cache.heads() + at.head, page = rows.page_size;
  slice<std::int32_t const> const kept = keep.row(r);
  auto const is_kept = [&](std::int64_t token) { return std::binary_search(kept.begin(), kept.end(), token); };
  explanation out{at.sequence, at.head, at.token, at.token};
  if (component const* const c = e.cache.find(role::position))
    out.position = element<std::int32_t const>(e.cache, *c, at.sequence, at.head, at.token);
  out.is_kept = is_kept(at.token);
  out.why = protecting_rule(e.cache, rows, r, at.token, at.token / page);
  if (out.why != rule::evicted) return out;
  rank_token(out, rows, r, at.token / page, [&](std::int64_t j) { return is_kept(j * page); });
  if (out.is_kept) out.why = rule::chosen;
  if (!out.is_kept && unseen::is(out.score)) out.why = rule::unseen;
  return out;
}

}  // namespace measure
}  // namespace KVEVICT_ABI
}  // namespace kvevict
