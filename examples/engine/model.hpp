// SPDX-License-Identifier: Apache-2.0
// The model on disk: config.json and model.safetensors, as prepare.py writes them.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

namespace llama {

using json = nlohmann::json;
using model_error = std::runtime_error;  // what is wrong with the files, in one line

struct config {
  int layers, heads, kv_heads, head_dim, hidden, ffn, vocab, max_positions;
  float rope_base, rms_eps;
  bool tied;
  std::vector<int> eos;
  std::vector<float> rope_factors;  // (D/2), or empty

  int group() const { return heads / kv_heads; }
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(config, layers, heads, kv_heads, head_dim, hidden, ffn, vocab, max_positions,
                                 rope_base, rms_eps, tied, eos, rope_factors)
};

/// A row-major float matrix inside the mapped file.
struct tensor {
  float const* data = nullptr;
  int rows = 0, cols = 1;
};

inline config checked(config c) {
  for (int n : {c.layers, c.heads, c.kv_heads, c.head_dim, c.hidden, c.ffn, c.vocab, c.max_positions})
    if (n < 1 || n > 1 << 22) throw model_error("a size is not between 1 and 2^22");
  if (c.heads % c.kv_heads != 0) throw model_error("heads is not a multiple of kv_heads");
  if (c.head_dim % 2 != 0 || std::int64_t{c.heads} * c.head_dim > 1 << 22)
    throw model_error("head_dim is odd or too large");
  if (!c.rope_factors.empty() && std::ssize(c.rope_factors) != c.head_dim / 2)
    throw model_error("rope_factors has the wrong length");
  if (!(c.rope_base > 0 && c.rms_eps >= 0)) throw model_error("rope_base is not above 0, or rms_eps is below it");
  return c;
}

/// A JSON file; what is wrong with it begins with its name.
inline json read_json(std::filesystem::path const& path) try {
  if (!std::filesystem::exists(path)) throw model_error("no such file");
  return json::parse(std::ifstream(path));
} catch (std::exception const& e) {
  throw model_error(path.string() + ": " + e.what());
}

inline config read_config(std::filesystem::path const& path) {
  json const text = read_json(path);
  try {
    return checked(text.get<config>());
  } catch (std::exception const& e) {
    throw model_error(path.string() + ": " + e.what());
  }
}
/// A safetensors file, mapped and checked; `get` hands out views that live as long as it does.
class tensor_file {
 public:
  explicit tensor_file(std::filesystem::path const& path) try : bytes_(std::filesystem::file_size(path)) {
    int const file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    void* const address = mmap(nullptr, bytes_, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file, 0);
    close(file);
    if (address == MAP_FAILED) throw model_error("cannot be mapped; it is empty or may not be read");
    memory_ = {static_cast<char*>(address), [n = bytes_](char* p) { munmap(p, n); }};
    std::uint64_t header = 0;
    if (bytes_ >= sizeof header) std::memcpy(&header, address, sizeof header);
    if (header == 0 || header > bytes_ - sizeof header)
      throw model_error("its header does not fit; it is truncated or no safetensors file");
    data_ = sizeof header + header;
    index_ = json::parse(memory_.get() + sizeof header, memory_.get() + data_);
  } catch (std::exception const& e) {
    throw model_error(path.string() + ": " + e.what());
  }

  tensor get(std::string const& name, int rows, int cols) const {
    return {static_cast<float const*>(get(name, cols == 1 ? shape{rows} : shape{rows, cols}, "F32", sizeof(float))),
            rows, cols};
  }

  /// The data of a tensor whose shape and type are as expected.
  using shape = std::vector<std::int64_t>;
  void const* get(std::string const& name, shape const& expected, std::string const& dtype, std::size_t width) const
      try {
    if (!index_.contains(name)) throw model_error("is missing");
    auto const& entry = index_.at(name);
    auto const range = entry.at("data_offsets").get<std::vector<std::uint64_t>>();
    auto size = std::uint64_t(width);
    for (auto n : expected) size *= std::uint64_t(n);
    if (entry.at("dtype") != dtype) throw model_error("is not " + dtype);
    if (entry.at("shape").get<shape>() != expected)
      throw model_error("has shape " + entry.at("shape").dump() + ", expected " + json(expected).dump());
    if (range.size() != 2 || range[0] > bytes_ - data_ || range[1] > bytes_ - data_)
      throw model_error("lies outside the file; it is truncated");
    if (range[1] - range[0] != size || (data_ + range[0]) % width != 0)
      throw model_error("has the wrong number of bytes, or odd ones");
    return memory_.get() + data_ + range[0];
  } catch (std::exception const& e) {
    throw model_error("tensor " + name + ": " + e.what());
  }

  /// The name of a float tensor that holds a NaN or an infinity, or nothing. Reads the whole file.
  std::string damaged() const {
    for (auto const& [name, entry] : index_.items()) {
      if (!entry.contains("dtype") || entry.at("dtype") != "F32") continue;
      auto const range = entry.at("data_offsets").get<std::vector<std::uint64_t>>();
      auto const* const data = reinterpret_cast<float const*>(memory_.get() + data_ + range.at(0));
      if (!std::all_of(data, data + (range.at(1) - range.at(0)) / sizeof(float),
                       [](float x) { return std::isfinite(x); }))
        return name;
    }
    return {};
  }

  /// The header: tensors, and the strings of __metadata__.
  json const& index() const { return index_; }

 private:
  std::size_t bytes_, data_ = 0;
  std::shared_ptr<char> memory_;
  json index_;
};

struct layer_weights {
  tensor input_norm, q, k, v, o, ffn_norm, gate, up, down;
};

/// Weights and sizes of one Llama-family model.
struct model {
  explicit model(std::filesystem::path const& directory)
      : cfg(read_config(directory / "config.json")), file(directory / "model.safetensors") {
    embedding = file.get("model.embed_tokens.weight", cfg.vocab, cfg.hidden);
    norm = file.get("model.norm.weight", cfg.hidden, 1);
    output = cfg.tied ? embedding : file.get("lm_head.weight", cfg.vocab, cfg.hidden);
    int const q_rows = cfg.heads * cfg.head_dim, kv_rows = cfg.kv_heads * cfg.head_dim;
    for (int l = 0; l < cfg.layers; ++l) {
      auto const get = [&, at = "model.layers." + std::to_string(l) + "."](char const* name, int rows, int cols) {
        return file.get(at + name + ".weight", rows, cols);
      };
      layers.push_back({get("input_layernorm", cfg.hidden, 1), get("self_attn.q_proj", q_rows, cfg.hidden),
                        get("self_attn.k_proj", kv_rows, cfg.hidden), get("self_attn.v_proj", kv_rows, cfg.hidden),
                        get("self_attn.o_proj", cfg.hidden, q_rows), get("post_attention_layernorm", cfg.hidden, 1),
                        get("mlp.gate_proj", cfg.ffn, cfg.hidden), get("mlp.up_proj", cfg.ffn, cfg.hidden),
                        get("mlp.down_proj", cfg.hidden, cfg.ffn)});
    }
  }

  config cfg;
  tensor_file file;
  tensor embedding, norm, output;
  std::vector<layer_weights> layers;
};

}  // namespace llama
