// SPDX-License-Identifier: Apache-2.0
// What the comparison writes: results.csv, one row per (policy, task, setting, budget, metric), means over the task's
// prompts.
#pragma once

#include <cstdio>
#include <fstream>
#include <map>
#include <tuple>

#include "policies.hpp"

namespace compare {

using llama::json;
using ids = std::vector<int>;

class table {
 public:
  table(int layers, int kv_heads, std::uint64_t seed) : rows_per_cache_(layers * kv_heads), seed_(seed) {}

  struct where {
    std::string policy, task, setting;
    int prompt_tokens, budget_tokens;
    auto operator<=>(where const&) const = default;
  };

  void add(where const& at, std::string const& metric, double score, eviction const& e, double decode_tokens_per_s) {
    auto& cell = cells_[{at, metric}];
    if (cell.n == 0) order_.push_back({at, metric});
    ++cell.n;
    cell.score += score;
    cell.sum.kept += e.kept;
    cell.sum.score_us += e.score_us;
    cell.sum.plan_us += e.plan_us;
    cell.sum.move_us += e.move_us;
    cell.sum.pages_freed += e.pages_freed;
    cell.sum.bytes_before += e.bytes_before;
    cell.sum.bytes_after += e.bytes_after;
    if (decode_tokens_per_s > 0) cell.speed += decode_tokens_per_s, ++cell.speeds;
  }

  void write(std::string const& path) const {
    std::ofstream out(path);
    out << "policy,task,setting,metric,prompt_tokens,budget_tokens,kept_tokens,score,cache_bytes_before,cache_bytes_"
           "after,pages_freed,"
           "score_us,plan_us,move_us,decode_tokens_per_s,seed,prompts\n";
    for (auto const& key : order_) {
      auto const& [at, metric] = key;
      auto const& c = cells_.at(key);
      std::int64_t const whole = std::int64_t{c.n} * rows_per_cache_;
      out << at.policy << ',' << at.task << ',' << at.setting << ',' << metric << ',' << at.prompt_tokens << ','
          << at.budget_tokens << ',' << number(double(c.sum.kept) / double(whole)) << ',' << number(c.score / c.n)
          << ',' << c.sum.bytes_before / c.n << ',' << c.sum.bytes_after / c.n << ',' << c.sum.pages_freed / c.n << ','
          << number(c.sum.score_us / c.n) << ',' << number(c.sum.plan_us / c.n) << ',' << number(c.sum.move_us / c.n)
          << ',' << number(c.speeds ? c.speed / c.speeds : 0) << ',' << seed_ << ',' << c.n << '\n';
    }
    if (!out.flush()) throw std::runtime_error(path + ": cannot be written");
  }

 private:
  static std::string number(double x) {  // a whole number stays one, so that a kept count that is not the budget shows
    char text[32];
    std::snprintf(text, sizeof text, x == double(std::int64_t(x)) ? "%.0f" : "%.6g", x);
    return text;
  }
  struct cell {
    int n = 0, speeds = 0;
    double score = 0, speed = 0;
    eviction sum;
  };
  int rows_per_cache_;
  std::uint64_t seed_;
  std::map<std::pair<where, std::string>, cell> cells_;
  std::vector<std::pair<where, std::string>> order_;
};

/// Progress on stderr: what is being done, and how long the rest will take.
class progress {
 public:
  explicit progress(double whole) : whole_(whole), start_(now()) {}
  void advance(double work, std::string const& what) {
    done_ += work;
    double const spent = now() - start_, left = done_ > 0 ? spent * (whole_ - done_) / done_ : 0;
    std::fprintf(stderr, "[%3.0f %%] %-44s %3.0f s gone, about %3.0f s left\n", 100 * done_ / whole_, what.c_str(),
                 spent, left);
  }

 private:
  double whole_, start_, done_ = 0;
};

}  // namespace compare
