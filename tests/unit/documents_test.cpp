// SPDX-License-Identifier: Apache-2.0
// What the READMEs promise about themselves: their code is a compiled example's, their links lead somewhere. And every
// text that people read fits into 120 columns.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "support/catch.hpp"

namespace documents_test {

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

/// Characters of a line of UTF-8.
std::int64_t columns_of(std::string const& line) {
  return std::count_if(line.begin(), line.end(), [](char c) { return (c & 0xc0) != 0x80; });
}

std::vector<std::filesystem::path> documents() {
  std::vector<std::filesystem::path> out{root / "README.md"};
  for (char const* folder : {"include", "tests", "bench", "examples"})
    for (auto const& entry : std::filesystem::recursive_directory_iterator(root / folder))
      if (entry.path().filename() == "README.md") out.push_back(entry.path());
  return out;
}

/// The texts that people read and write: those at the top, those of the folders, and all of .ci.
std::vector<std::filesystem::path> texts() {
  constexpr std::string_view kinds[]{".cmake", ".cpp", ".cu", ".cuh", ".hpp", ".md", ".py", ".sh", ".toml", ".txt"};
  std::vector<std::filesystem::path> out;
  auto const take = [&](std::filesystem::directory_entry const& entry, bool any = false) {
    bool const known = std::find(std::begin(kinds), std::end(kinds), entry.path().extension()) != std::end(kinds);
    if (entry.is_regular_file() && (known || any)) out.push_back(entry.path());
  };
  for (auto const& entry : std::filesystem::directory_iterator(root)) take(entry);
  for (auto const& entry : std::filesystem::directory_iterator(root / ".ci")) take(entry, true);
  for (char const* folder : {"include", "tests", "bench", "examples"})
    for (auto const& entry : std::filesystem::recursive_directory_iterator(root / folder)) take(entry);
  return out;
}

/// The lines that may be longer, and no others: what a program reads as one line, has recorded or generated.
bool may_be_long(std::string const& file, int number, std::string const& line) {
  auto const below = [&](std::string_view folder) { return file.starts_with(folder); };
  if (below("tests/fail/") || below("tests/simt/caught/")) return number == 1 && line.starts_with("// expect");
  if (below("bench/instructions/")) return file.ends_with(".txt");
  if (file == "bench/cuda/static.md" || below("bench/quality/results/")) return line.starts_with("|");  // tables
  return false;
}

/// "file:line" of each line of more than 120 columns.
std::vector<std::string> too_long(std::filesystem::path const& path) {
  std::string const file = path.lexically_relative(root).generic_string();
  std::vector<std::string> out;
  std::istringstream text(text_of(path));
  int number = 0;
  for (std::string line; std::getline(text, line);)
    if (++number; columns_of(line) > 120 && !may_be_long(file, number, line))
      out.push_back(file + ":" + std::to_string(number));
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

TEST_CASE("documents: the first README is at most 120 lines long") {
  std::string const text = text_of(root / "README.md");
  CHECK(std::count(text.begin(), text.end(), '\n') <= 120);
}

TEST_CASE("documents: texts that people read are at most 120 columns wide") {
  auto const files = texts();
  for (char const* file : {"README.md", ".ci/run", "include/kvevict/kvevict.hpp", "tests/unit/documents_test.cpp"}) {
    INFO(file);
    REQUIRE(std::find(files.begin(), files.end(), root / file) != files.end());
  }
  for (auto const& file : files) CHECK(too_long(file) == std::vector<std::string>{});
}

TEST_CASE("documents: every relative link of a README leads to a file or a folder") {
  REQUIRE(documents().size() >= 5);
  for (auto const& file : documents()) {
    INFO(file);
    CHECK(dead_links(file) == std::vector<std::string>{});
  }
}

}  // namespace documents_test
