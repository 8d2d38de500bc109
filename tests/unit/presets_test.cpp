// SPDX-License-Identifier: Apache-2.0
// A preset is in every place that lists presets, or this fails and names the place. The list is presets/: a header
// each.
#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>
#include <string>

#include "support/catch.hpp"

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

/// The names in the first column of the table.
names in_readme() {
  std::string const text = text_of(presets / "README.md");
  std::size_t const from = text.find("| preset |"), to = text.find("\n\n", from);
  REQUIRE(from != std::string::npos);
  std::string first_columns;
  for (std::string const& line : found(text.substr(from, to - from), "\n\\| ([^|]*) \\|")) first_columns += line + '\n';
  return found(first_columns, "`([a-z0-9_]+)`");
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
