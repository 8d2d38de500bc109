// SPDX-License-Identifier: Apache-2.0
// Several scores, each with a share of the evictable budget, taken in turn.
#pragma once

#include <algorithm>
#include <tuple>

#include <kvevict/evidence/expect_fit.hpp>
#include <kvevict/evidence/taken_in_turn.hpp>
#include <kvevict/score/score.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace score {

/// Of a share: the policy's own heads stage.
struct heads_of_policy {};

/// A score, the thousandths of the evictable budget that it takes, and, if it is not the policy's, its heads stage.
///
/// A score that says `static constexpr bool refines = true` finds in its rows the scores of the share before it, see
/// of_share_before.
template <class Score, class Heads = heads_of_policy> struct share {
  static_assert(stage<Score>, "share: its score is no score; give a class with operator()(ctx, evidence, score_rows&)");
  static_assert(std::is_same_v<Heads, heads_of_policy> || std::is_same_v<stage_of<Heads>, stages::heads>,
                "share: what stands behind the score is no heads stage; give one, or nothing for the policy's");
  std::int32_t permille;
  Score score;
  Heads heads{};
};
/// What the first of two shares leaves; of none that is one, 0, which shares refuse.
constexpr std::int32_t rest_of_share(std::int32_t permille) {
  return permille >= 0 && permille <= 1000 ? 1000 - permille : 0;
}
template <class Score> share(std::int32_t, Score) -> share<Score>;
template <class Score, class Heads> share(std::int32_t, Score, Heads) -> share<Score, Heads>;

/// The scores of the share before: what a score that wraps another refines them by.
struct of_share_before {
  static constexpr bool refines = true;
  template <class Context, class Evidence> void operator()(Context&, Evidence const&, score_rows&) const {}
};

/// What a heads stage divides: each share, by that share's own scores; or all shares together, once, by the first
/// share's scores, and each share is then taken within every head.
enum class heads_divide : std::uint8_t { each_share, whole_budget };

template <class Score>
inline constexpr bool refines_before = [] {
  if constexpr (requires { Score::refines; }) return Score::refines;
  return false;
}();

template <class Score> inline constexpr bool remembers = requires(Score const& score) { score.state_floats(); };

/// Several scores that take their shares of the evictable budget in turn: each chooses among what the ones before it
/// left. The tokens of all turns together are the budget, always.
///
///   q_i = ⌊Q·p_i/1000⌋, and one more for the largest remainders (ties: the earlier share), Σ q_i = Q      Q: of a row;
///   of a layer's heads together where a heads stage divides a budget; see with_rest_to_last
///   turn i keeps the q_i best by score i of the candidates that turns 0 … i − 1 left
///
/// Where heads share a budget a share is first handed out evenly, no head more than candidates are left in it (lower
/// heads first), and the share's heads stage moves it: exact Ada within a share. In each turn: score descending,
/// position descending, and under an adaptive heads stage head ascending; so shares that all have one score keep what
/// that score alone keeps, in rows of their own.
/// Under select::pages Q and q_i are full pages. `scores()` tells those of the first share; of the next:
/// policy.with(policy.score.at<1>().score).
/// Cost     each share's score, heads and selection; scratch 4 bytes a token, 4 more where a score refines another's.
/// Errors   contract_violation when it is made, unless the shares add up to 1000.
template <class... Shares> class shares {
 public:
  static_assert(sizeof...(Shares) >= 1 && sizeof...(Shares) <= planning::budget_shares::most,
                "shares: give one to eight of them");
  static_assert(!refines_before<decltype(std::tuple_element_t<0, std::tuple<Shares...>>::score)>,
                "shares: the first score refines that of a share before it, and there is none; put another first");

  constexpr explicit shares(Shares... of) : parts_(of...) { expect_whole(); }
  /// The same shares, of which heads stages divide that.
  constexpr shares dividing(heads_divide what) const {
    shares out = *this;
    out.divided_ = what;
    return out;
  }
  constexpr heads_divide divided() const { return divided_; }
  /// The same shares, of which the last one takes what rounding the others down leaves, as halves of a paper do.
  constexpr shares with_rest_to_last() const {
    shares out = *this;
    out.rest_ = planning::rest_of_shares::to_last;
    return out;
  }

  /// In thousandths.
  constexpr planning::budget_shares in_thousandths() const {
    planning::budget_shares out;
    out.rest = rest_;
    each([&](auto const& part) { out.permille[out.count++] = part.permille; });
    return out;
  }
  /// f(share) of each, in turn.
  template <class F> constexpr void each(F&& f) const {
    std::apply([&](auto const&... part) { (f(part), ...); }, parts_);
  }
  template <std::size_t I> constexpr auto const& at() const { return std::get<I>(parts_); }
  /// The same shares with f(score) for each score, to time or to scale it.
  template <class F> constexpr auto with_each(F f) const {
    return std::apply(
        [&](auto const&... part) {
          auto const with = [&](auto const& p) { return share{p.permille, f(p.score), p.heads}; };
          auto const out = shares<decltype(with(part))...>(with(part)...).dividing(divided_);
          return rest_ == planning::rest_of_shares::to_last ? out.with_rest_to_last() : out;
        },
        parts_);
  }

  static constexpr bool same_for_all_rows = (stages::says_same_for_all_rows<decltype(Shares::score)> && ...);
  static constexpr bool any_refines = (refines_before<decltype(Shares::score)> || ...);

  /// Of the one score that remembers; of several that do nobody knows whose a float is.
  static constexpr int remembering = (int{remembers<decltype(Shares::score)>} + ...);
  constexpr std::int32_t state_floats() const requires(remembering == 1) {
    std::int32_t out = 0;
    each([&](auto const& part) {
      if constexpr (remembers<decltype(part.score)>) out = part.score.state_floats();
    });
    return out;
  }
  template <class Context, class Evidence, class... Rest>
  void observe(Context& ctx, Evidence const& e, Rest&&... rest) const {
    each([&](auto const& part) {
      if constexpr (remembers<decltype(part.score)>) part.score.observe(ctx, e, rest...);
    });
  }

  /// Of one turn, but for the policy's own stages.
  template <class Context> std::int64_t workspace_bytes(Context const& ctx, cache_shape const& s) const {
    std::int64_t most = 0;
    auto const take = [&](auto const& stage) {
      if constexpr (requires { stage.workspace_bytes(ctx, s); }) most = std::max(most, stage.workspace_bytes(ctx, s));
    };
    each([&](auto const& part) { take(part.score), take(part.heads); });
    return most;
  }

  template <class Context, class Evidence> void operator()(Context&, Evidence const&, score_rows&) const {
    static_assert(kernels::never<Context, Evidence>,
                  "shares: they are a policy's score, and not part of another; wrap the score of each share, as "
                  "with_each(f) does");
  }

 private:
  constexpr void expect_whole() const {
    std::int64_t sum = 0;
    bool negative = false;
    each([&](auto const& part) { sum += part.permille, negative = negative || part.permille < 0; });
    KVEVICT_EXPECTS(sum == 1000 && !negative, "shares: they add up to ", sum,
                    " thousandths of the budget, or one is negative; give 0 or more each, 1000 in all");
  }

  std::tuple<Shares...> parts_;
  heads_divide divided_ = heads_divide::each_share;
  planning::rest_of_shares rest_ = planning::rest_of_shares::to_largest_remainders;
};

template <class Score> inline constexpr bool is_shares = false;
template <class... Shares> inline constexpr bool is_shares<shares<Shares...>> = true;

}  // namespace score
}  // namespace KVEVICT_ABI
}  // namespace kvevict
