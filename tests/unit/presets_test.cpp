// SPDX-License-Identifier: Apache-2.0
// A preset is in every place that lists presets, or this fails and names the place. The list is presets/: a header
// each. What README.md's table says of a preset is what its type and the tests say; KVEVICT_WRITE_TABLES=1 writes that.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/presets.hpp"

namespace presets_test {

namespace {

using names = std::set<std::string>;
std::filesystem::path const presets = std::filesystem::path(KVEVICT_INCLUDE_DIR) / "presets";
std::filesystem::path const root = std::filesystem::path(KVEVICT_INCLUDE_DIR) / "../..";

std::string text_of(std::filesystem::path const& file) {
  std::ifstream in(file);
  REQUIRE(in.is_open());
  return {std::istreambuf_iterator<char>(in), {}};
}

/// What the pattern's group finds in the text.
names found(std::string const& text, char const* pattern) {
  names out;
  std::regex const what(pattern);
  for (std::sregex_iterator it(text.begin(), text.end(), what), end; it != end; ++it) out.insert((*it)[1]);
  return out;
}

names all() {
  names out;
  for (auto const& entry : std::filesystem::directory_iterator(presets))
    if (entry.path().extension() == ".hpp" && entry.path().stem() != "all") out.insert(entry.path().stem().string());
  return out;
}

std::filesystem::path const readme = presets / "README.md";
enum column : std::size_t { preset, arxiv, keeps, reads, cost, heads, layers, against, columns };
using cells = std::vector<std::string>;

bool is_row(std::string const& line) { return line.rfind("| `", 0) == 0; }
cells cells_of(std::string const& line) {
  cells out;
  std::regex const cell("\\| (.*?) (?=\\|)");
  for (std::sregex_iterator it(line.begin(), line.end(), cell), end; it != end; ++it) out.push_back((*it)[1]);
  return out;
}
std::string name_of(cells const& row) { return row.at(0).substr(1, row[0].size() - 2); }
/// The rows of the README's two tables, what a preset is and what it costs, by preset: side by side.
std::map<std::string, cells> table() {
  std::map<std::string, cells> out;
  std::istringstream in(text_of(readme));
  for (std::string line; std::getline(in, line);)
    if (is_row(line)) {
      INFO(line);
      cells const c = cells_of(line);
      cells& row = out[name_of(c)];
      REQUIRE(c.size() == (row.empty() ? cost : columns - cost + 1));
      row.insert(row.end(), c.begin() + (row.empty() ? 0 : 1), c.end());
    }
  return out;
}
names in_readme() {
  names out;
  for (auto const& [name, row] : table())
    if (row.size() == columns) out.insert(name);
  return out;
}

/// Which files of numbers check the preset by its name, whose numbers they are.
std::string sources(std::string const& name, bool has_reference) {
  std::string out;
  for (auto const& [file, whose] : {std::pair{"kvpress", "kvpress"}, {"h2o_real_drop", "authors' code"}})
    if (text_of(root / "tests/golden" / (std::string(file) + "_test.cpp")).find("presets::" + name + "(") !=
        std::string::npos)
      out += std::string(whose) + ", ";
  return out + (has_reference ? "own reference" : "laws");
}

/// What the code says of the preset, in the words of the table.
template <class Policy> cells said_by_type(Policy const&, cells row) {
  using layers_of = decltype(Policy::layers);
  row[heads] = Policy::one_set ? "one set" : Policy::equal_counts ? "equal" : "ragged";
  bool const even = kvevict::stages::says_equal_budgets<layers_of> && Policy::budgets != kvevict::sharing::stack &&
                    Policy::budgets != kvevict::sharing::cap;
  row[layers] = even || std::is_same_v<layers_of, kvevict::layers::unlimited> ? "equal" : "uneven";
  return row;
}

/// Evidence and cost go together, and the paper is the one that the header names.
void check_words(cells const& row, support::needs what, std::string const& header) {
  using support::needs;
  bool const queries = what != needs::nothing && what != needs::features;
  CHECK((row[reads].find("quer") != std::string::npos) == queries);
  CHECK((row[reads].find("hidden") != std::string::npos) == (what == needs::features));
  CHECK((row[cost].find("Hq·N") != std::string::npos) == queries);
  CHECK(row[keeps].size() > 8);  // in words
  for (std::string const& number : found(row[arxiv], "(\\d{4}\\.\\d{5}|[A-Za-z]{6,}\\w+)"))
    CHECK((number == "openreview" || header.find(number) != std::string::npos));
  if (row[arxiv] == "ours") CHECK(header.find("/// Ours") != std::string::npos);
}

}  // namespace

TEST_CASE("a preset is in every list of presets") {
  names const want = all();
  CHECK(found(text_of(presets / "all.hpp"), "kvevict/presets/(\\w+)\\.hpp") == want);
  CHECK(in_readme() == want);
  // The laws and, through the same list, the emulation's plans.
  CHECK(found(text_of(root / "tests/support/presets.hpp"), "\"(\\w+)\",\\s+p::\\w+\\(") == want);
  CHECK(found(text_of(root / "tests/fuzz/presets.hpp"), "p::(\\w+)\\(") == want);
  CHECK(found(text_of(root / "tests/flags/keep_sets.cpp"), "print\\(\"(\\w+)\", p::\\w+\\(") == want);
  for (char const* umbrella : {"kvevict.hpp", "cuda.cuh"})
    CHECK(found(text_of(presets / ".." / umbrella), "kvevict/presets/(\\w+)\\.hpp") == names{"all"});

  names compared = found(text_of(root / "examples/compare/presets.hpp"), "f\\(\"(\\w+)\", \\w+\\(");
  compared.insert({"oracle", "attention_gate"});  // the future's queries, and trained gates: compared apart
  CHECK(compared == want);
}

TEST_CASE("README's table says of every preset what its type, its evidence and the tests say") {
  std::map<std::string, cells> made = table();
  support::for_each_preset([&](auto const& p) {
    INFO(p.name);
    REQUIRE(made.count(p.name) == 1);
    cells& row = made[p.name];
    row = said_by_type(p.policy, row);
    row[against] = sources(p.name, p.expected != nullptr);
    check_words(row, decltype(p.what)(p.what), text_of(presets / (std::string(p.name) + ".hpp")));
  });
  std::string want;
  std::istringstream in(text_of(readme));
  for (std::string line; std::getline(in, line); want += line + '\n') {
    if (!is_row(line) || cells_of(line).size() == cost) continue;
    cells const& row = made[name_of(cells_of(line))];
    line = "| " + row[preset] + " |";
    for (std::size_t i = cost; i < columns; ++i) line += ' ' + row[i] + " |";
  }
  if (std::getenv("KVEVICT_WRITE_TABLES") != nullptr)
    std::ofstream(readme) << want;
  else
    CHECK(text_of(readme) == want);
}

}  // namespace presets_test
