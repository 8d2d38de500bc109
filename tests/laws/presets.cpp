// SPDX-License-Identifier: Apache-2.0
// The one place where the laws' program compiles the policies.
#include "support/presets.hpp"

namespace support {
namespace {

template <class Score> struct scaled {
  static constexpr bool refines = kvevict::score::refines_before<Score>;
  Score inner;
  float factor;

  template <class Context, class Evidence>
  void operator()(Context& ctx, Evidence const& e, kvevict::score_rows& out) const {
    inner(ctx, e, out);
    for (std::int64_t r = 0; r < out.count(); ++r)
      if (out.rows[r].active)
        for (float& x : out.scores(r)) x *= factor;
  }
};

/// The policy with every score multiplied.
template <class Policy> auto scaled_by(float factor, Policy const& p) {
  auto const with = [factor](auto const& score) { return scaled<std::remove_cvref_t<decltype(score)>>{score, factor}; };
  if constexpr (kvevict::score::is_shares<decltype(p.score)>)
    return p.with(p.score.with_each(with));
  else
    return p.with(with(p.score));
}

}  // namespace

std::vector<any_preset> const& presets() {
  static std::vector<any_preset> const all = [] {
    std::vector<any_preset> out;
    for_each_preset([&](auto p) {
      out.push_back(
          {p.name,
           [p](kvevict::host& ctx, any_view const& view, hand_in const& in, kvevict::budget const& b,
               kvevict::keep_set& keep) {
             std::visit(
                 [&](auto const& v) {
                   p.show(v, in, [&](auto const& e) { kvevict::plan(ctx, p.policy, e, b, keep); });
                 },
                 view);
           },
           [p](kvevict::host& ctx, any_view const& view, hand_in const& in, kvevict::budget const& b,
               std::vector<float>& values) {
             std::visit(
                 [&](auto const& v) {
                   p.show(v, in, [&](auto const& e) { kvevict::scores(ctx, p.policy, e, b, values); });
                 },
                 view);
           },
           [p](kvevict::host const& ctx, kvevict::cache_shape const& s) { return workspace_bytes(ctx, p.policy, s); },
           [p](kvevict::host& ctx, any_view const& view, hand_in const& in, kvevict::budget const& b, float factor) {
             kvevict::keep_set keep;
             auto const policy = scaled_by(factor, p.policy);
             p.show(std::get<0>(view), in, [&](auto const& e) { kvevict::plan(ctx, policy, e, b, keep); });
             return keep;
           },
           p.expected, p.protected_first, p.protected_last, p.protected_last_permille, decltype(p.policy)::equal_counts,
           p.over_layers,
           decltype(p.policy)::budgets == kvevict::sharing::stack ||
               kvevict::planning::after_scores<decltype(p.policy.layers)>()});
    });
    return out;
  }();
  return all;
}

}  // namespace support
