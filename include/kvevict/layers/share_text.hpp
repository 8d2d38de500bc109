// SPDX-License-Identifier: Apache-2.0
// The text of a file of shares: what each layer and head of a model gets, for layers::table and heads::table.
#pragma once

#include <charconv>
#include <cstdint>
#include <string_view>
#include <vector>

#include <kvevict/core/apportion.hpp>
#include <kvevict/core/contract.hpp>
#include <kvevict/evidence/budget.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {

/// Shares as they were read; `of_layers` (L): the sums of `of_heads` (L,H). Stages borrow them, on the host as they
/// are:
///
///   policy.with(layers::table{t.of_layers.data(), t.layers}).with(heads::table{t.of_heads.data(), t.layers, t.heads})
struct share_table {
  std::int32_t layers = 0, heads = 0;
  std::vector<std::int32_t> of_heads, of_layers;
};

namespace share_text {

inline constexpr std::int32_t most = most_share;  // of a layer's shares together

/// The lines of a text that say something, and their numbers in the file.
class lines {
 public:
  explicit lines(std::string_view text) : rest_(text) {}

  /// False at the end.
  bool next() {
    while (!rest_.empty()) {
      std::size_t const end = rest_.find('\n');
      line_ = rest_.substr(0, end);
      rest_.remove_prefix(end == std::string_view::npos ? rest_.size() : end + 1);
      ++number_;
      while (!line_.empty() && is_blank(line_.back())) line_.remove_suffix(1);
      while (!line_.empty() && is_blank(line_.front())) line_.remove_prefix(1);
      if (!line_.empty() && line_.front() != '#') return true;
    }
    return false;
  }
  /// The next word of the line, empty behind the last.
  std::string_view word() {
    std::size_t end = 0;
    while (end < line_.size() && !is_blank(line_[end])) ++end;
    std::string_view const out = line_.substr(0, end);
    while (end < line_.size() && is_blank(line_[end])) ++end;
    line_.remove_prefix(end);
    return out;
  }
  std::int64_t number() const { return number_; }

 private:
  static bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }
  std::string_view rest_, line_;
  std::int64_t number_ = 0;
};

/// A whole number in [0, limit], else −1.
inline std::int32_t count_of(std::string_view word, std::int32_t limit) {
  std::int32_t out = -1;
  auto const [end, error] = std::from_chars(word.data(), word.data() + word.size(), out);
  return error == std::errc() && end == word.data() + word.size() && out >= 0 && out <= limit ? out : -1;
}

inline void read_header(lines& in, share_table& out) {
  bool const first = in.next() && in.word() == "kvevict" && in.word() == "shares" && in.word() == "1";
  KVEVICT_EXPECTS(first && in.word().empty(), "shares: line ", in.number(),
                  " is not \"kvevict shares 1\", with which a file of shares begins");
  bool sound = in.next() && in.word() == "layers";
  out.layers = sound ? count_of(in.word(), most_layers) : -1;
  sound = sound && in.word() == "heads";
  out.heads = sound ? count_of(in.word(), most_layers) : -1;
  KVEVICT_EXPECTS(out.layers >= 1 && out.heads >= 1 && in.word().empty(), "shares: line ", in.number(),
                  " is not \"layers L heads H\" with two numbers from 1 to ", most_layers);
}

inline void read_layer(lines& in, share_table& out) {
  auto const l = static_cast<std::int32_t>(out.of_layers.size());
  std::int64_t sum = 0;
  for (std::int32_t h = 0; h < out.heads; ++h) {
    std::string_view const word = in.word();
    KVEVICT_EXPECTS(!word.empty(), "shares: line ", in.number(), " has ", h, " numbers, but layer ", l, " has ",
                    out.heads, " heads");
    std::int32_t const share = count_of(word, most);
    KVEVICT_EXPECTS(share >= 0, "shares: number ", h + 1, " of line ", in.number(), " is no whole number from 0 to ",
                    most);
    out.of_heads.push_back(share), sum += share;
  }
  KVEVICT_EXPECTS(in.word().empty(), "shares: line ", in.number(), " has more than ", out.heads,
                  " numbers, one of each head");
  KVEVICT_EXPECTS(sum <= most, "shares: line ", in.number(), " adds up to ", sum, "; give smaller numbers, at most ",
                  most, " together");
  out.of_layers.push_back(static_cast<std::int32_t>(sum));
}

}  // namespace share_text

/// Reads a table of shares from the text of a file:
///
///   kvevict shares 1
///   # a line of remarks
///   layers 2 heads 4
///   12 0 3 1
///   5 5 5 5
///
/// A line a layer, from the first one on, a whole number a head; only their ratios count. Empty lines and those that
/// begin with # say nothing.
/// Errors   contract_violation: another beginning, layers or numbers missing or too many, a word that is no whole
///          number from 0 to 1 000 000, a layer whose shares exceed that together, nothing but zeros. The line is
///          named.
inline share_table read_shares(std::string_view text) {
  share_table out;
  share_text::lines in(text);
  share_text::read_header(in, out);
  std::int64_t sum = 0;
  while (in.next()) {
    KVEVICT_EXPECTS(static_cast<std::int32_t>(out.of_layers.size()) < out.layers, "shares: line ", in.number(),
                    " is of a layer more than the ", out.layers, " that the file announces");
    share_text::read_layer(in, out), sum += out.of_layers.back();
  }
  KVEVICT_EXPECTS(static_cast<std::int32_t>(out.of_layers.size()) == out.layers, "shares: the file ends after ",
                  out.of_layers.size(), " of ", out.layers, " layers");
  KVEVICT_EXPECTS(sum > 0, "shares: all are 0; give at least one head a share");
  return out;
}

}  // namespace KVEVICT_ABI
}  // namespace kvevict
