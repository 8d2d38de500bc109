// SPDX-License-Identifier: Apache-2.0
// Golden fixtures: numbers obtained from other implementations. Sizes are read from the files, nothing is assumed.
//
// The directory is the environment variable KVEVICT_GOLDEN_DIR or, when that is unset or empty, the compile definition
// KVEVICT_GOLDEN_DEFAULT_DIR (a string).
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "support/reference.hpp"

namespace golden {

using json = nlohmann::json;

inline std::filesystem::path directory() {
  if (char const* const chosen = std::getenv("KVEVICT_GOLDEN_DIR"); chosen != nullptr && *chosen != '\0') return chosen;
#ifdef KVEVICT_GOLDEN_DEFAULT_DIR
  return KVEVICT_GOLDEN_DEFAULT_DIR;
#else
  throw std::runtime_error("golden: no directory; set KVEVICT_GOLDEN_DIR or compile with KVEVICT_GOLDEN_DEFAULT_DIR");
#endif
}

/// The fixture `name` (without .json).
inline json load(std::string const& name) {
  std::filesystem::path const path = directory() / (name + ".json");
  std::ifstream file(path);
  if (!file)
    throw std::runtime_error("golden: cannot open " + path.string() +
                             "; set KVEVICT_GOLDEN_DIR to a directory with the fixtures");
  try {
    return json::parse(file);
  } catch (json::exception const& error) {
    throw std::runtime_error("golden: " + path.string() + " is not JSON: " + error.what());
  }
}

/// A member, or an error that names it.
inline json const& member(json const& object, std::string const& key) {
  if (!object.is_object() || !object.contains(key))
    throw std::runtime_error("golden: the fixture has no member '" + key + "'");
  return object.at(key);
}

template <class T> T value(json const& object, std::string const& key) { return member(object, key).get<T>(); }

inline std::size_t size(json const& object, std::string const& key) { return value<std::size_t>(object, key); }

/// {"shape": […], "data": […]}, row-major.
struct tensor {
  std::vector<std::size_t> shape;
  std::vector<double> data;

  [[nodiscard]] std::size_t dim(std::size_t axis) const { return shape.at(axis); }

  /// Extent of the axis counted from the last, 0 = last.
  [[nodiscard]] std::size_t dim_from_end(std::size_t axis) const { return shape.at(shape.size() - 1 - axis); }

  [[nodiscard]] std::vector<float> floats() const {
    std::vector<float> out;
    for (double const x : data) out.push_back(static_cast<float>(x));
    return out;
  }
};

inline tensor as_tensor(json const& object) {
  tensor out{value<std::vector<std::size_t>>(object, "shape"), value<std::vector<double>>(object, "data")};
  std::size_t count = 1;
  for (std::size_t const n : out.shape) count *= n;
  if (count != out.data.size()) throw std::runtime_error("golden: a tensor's data does not have the size of its shape");
  return out;
}

inline tensor as_tensor(json const& object, std::string const& key) { return as_tensor(member(object, key)); }

/// All but the last axis flattened: (H,M) from [1,H,M] or [H,M].
inline reference::rows as_rows(tensor const& t) {
  std::size_t const width = t.dim_from_end(0);
  reference::rows out;
  for (std::size_t begin = 0; width > 0 && begin < t.data.size(); begin += width)
    out.emplace_back(t.data.begin() + static_cast<std::ptrdiff_t>(begin),
                     t.data.begin() + static_cast<std::ptrdiff_t>(begin + width));
  return out;
}

inline reference::rows rows(json const& object, std::string const& key) { return as_rows(as_tensor(object, key)); }

/// (heads, tokens, width) from [1,H,N,D] or [H,N,D]; a batch above 1 is refused.
inline reference::cube as_cube(tensor const& t) {
  reference::cube out(t.dim_from_end(2), t.dim_from_end(1), t.dim_from_end(0));
  if (out.data.size() != t.data.size()) throw std::runtime_error("golden: expected one sequence");
  out.data = t.data;
  return out;
}

inline reference::cube cube(json const& object, std::string const& key) { return as_cube(as_tensor(object, key)); }

/// Rows of indices, one per head.
inline reference::index_rows index_rows(json const& object, std::string const& key) {
  return value<reference::index_rows>(object, key);
}

/// The model inputs that most fixtures were computed from (inputs.json): Q and K rotated, V, and W^O turned to (Hq·D,
/// E). The file holds W^O as PyTorch's Linear does: (out, in).
struct model_inputs {
  reference::layer layer;
  reference::projection output;
};

inline model_inputs inputs() {
  json const file = load("inputs");
  model_inputs out;
  out.layer.queries = reference::rope(cube(file, "Qpre"));
  out.layer.keys = reference::rope(cube(file, "Kpre"));
  out.layer.values = cube(file, "V");
  tensor const wo = as_tensor(file, "Wo");
  out.output = {wo.dim(1), wo.dim(0), std::vector<double>(wo.data.size())};
  for (std::size_t e = 0; e < wo.dim(0); ++e)
    for (std::size_t c = 0; c < wo.dim(1); ++c) out.output.data[c * wo.dim(0) + e] = wo.data[e * wo.dim(1) + c];
  return out;
}

using reference::equal_up_to_ties;
using reference::is_top_up_to_ties;

}  // namespace golden
