// SPDX-License-Identifier: Apache-2.0
// What the READMEs promise about themselves: their code is a compiled example's, their links lead somewhere, they fit.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "support/catch.hpp"

namespace {

std::filesystem::path const root = std::filesystem::path(KVEVICT_INCLUDE_DIR).parent_path().parent_path();

std::string text_of(std::filesystem::path const& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// Between the two marks, or empty when either is missing.
std::string between(std::string const& text, std::string const& from, std::string const& to) {
  std::size_t const a = text.find(from), start = a + from.size();
  std::size_t const b = a == std::string::npos ? a : text.find(to, start);
  return b == std::string::npos ? "" : text.substr(start, b - start);
}

/// Characters of each line of UTF-8.
std::vector<std::int64_t> columns_of(std::string const& text) {
  std::vector<std::int64_t> out{0};
  for (char const c : text)
    if (c == '\n')
      out.push_back(0);
    else
      out.back() += (c & 0xc0) != 0x80;
  if (out.back() == 0) out.pop_back();
  return out;
}

std::vector<std::filesystem::path> documents() {
  std::vector<std::filesystem::path> out{root / "README.md"};
  for (char const* folder : {"include", "tests", "bench", "examples"})
    for (auto const& entry : std::filesystem::recursive_directory_iterator(root / folder))
      if (entry.path().filename() == "README.md") out.push_back(entry.path());
  return out;
}

/// Files and folders that [text](target) names and that are not there.
std::vector<std::string> dead_links(std::filesystem::path const& file) {
  std::string const text = text_of(file);
  std::vector<std::string> out;
  for (std::size_t i = text.find("]("); i != std::string::npos; i = text.find("](", i + 2)) {
    std::string const target = text.substr(i + 2, text.find_first_of(")#\n", i + 2) - i - 2);
    if (!target.empty() && target.find("://") == std::string::npos &&
        !std::filesystem::exists(file.parent_path() / target))
      out.push_back(target);
  }
  return out;
}

}  // namespace

TEST_CASE("documents: the code of the README is that of a compiled example") {
  std::string const shown = between(text_of(root / "README.md"), "```cpp\n", "```\n");
  REQUIRE(!shown.empty());
  CHECK(shown == between(text_of(root / "examples/prefill_ada_snapkv.cpp"), "// [README]\n", "// [/README]\n"));
}

TEST_CASE("documents: READMEs are at most 120 columns wide, the first at most 120 lines long") {
  CHECK(columns_of(text_of(root / "README.md")).size() <= 120);
  REQUIRE(documents().size() >= 5);
  for (auto const& file : documents()) {
    INFO(file);
    auto const columns = columns_of(text_of(file));
    auto const widest = std::max_element(columns.begin(), columns.end());
    INFO("line " << 1 + (widest - columns.begin()));
    CHECK(*widest <= 120);
  }
}

TEST_CASE("documents: every relative link of a README leads to a file or a folder") {
  for (auto const& file : documents()) {
    INFO(file);
    CHECK(dead_links(file) == std::vector<std::string>{});
  }
}
