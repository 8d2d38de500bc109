// The forward pass: any mix of prefill chunks and decode steps of several sequences in one batch.
#pragma once

#include <omp.h>

#include <Eigen/Core>
#include <climits>
#include <cmath>
#include <numeric>
#include <span>

#include "attention.hpp"
#include "cache.hpp"
#include "model.hpp"

namespace llama {

using activations = Eigen::Map<Eigen::MatrixXf>;  // a column is one token: (T,features) in memory
using logits = Eigen::Map<Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> const>;

/// New tokens of one sequence: a prompt, a further piece of it, or one token of a decode step.
struct chunk {
  sequence* seq;
  std::span<int const> tokens;
  int tail = 1;  // logits are computed for so many of the last tokens
};

/// What a pass saw, for eviction afterwards. The rows are the last `tail` tokens of each chunk, chunk after chunk.
struct record {
  int tail = INT_MAX;
  std::vector<std::vector<float>> queries;  // L x (rows,Hq,D), rotated
  std::vector<std::vector<float>> lse;      // L x (rows,Hq), natural log
  std::vector<std::int32_t> positions;      // (rows)
  std::vector<std::int32_t> row_begin;      // (B+1)
};

/// Memory that only grows.
class buffer {
 public:
  activations operator()(Eigen::Index rows, Eigen::Index cols) {
    if (store_.size() < rows * cols) store_.resize(rows * cols);
    return {store_.data(), rows, cols};
  }

 private:
  Eigen::VectorXf store_;
};

enum class into { set, add };

/// y = W x, or y += W x, in tiles that the threads share.
inline void linear(tensor const& w, activations const& x, activations y, into how = into::set) {
  Eigen::Map<Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> const> const weight(w.data, w.rows, w.cols);
  int const T = int(x.cols()), height = T < 128 ? 96 : 192, width = 256;
#pragma omp parallel for collapse(2) schedule(dynamic)
  for (int t = 0; t < T; t += width)
    for (int o = 0; o < w.rows; o += height) {
      int const m = std::min(height, w.rows - o), n = std::min(width, T - t);
      auto tile = y.block(o, t, m, n);
      if (how == into::set) tile.noalias() = weight.middleRows(o, m) * x.middleCols(t, n);
      else tile.noalias() += weight.middleRows(o, m) * x.middleCols(t, n);
    }
}

inline void rms_norm(activations const& x, tensor const& gain, float eps, activations y) {
  Eigen::Map<Eigen::VectorXf const> const g(gain.data, gain.rows);
#pragma omp parallel for if (x.cols() > 16)
  for (Eigen::Index t = 0; t < x.cols(); ++t) {
    float const scale = 1.0f / std::sqrt(x.col(t).squaredNorm() / float(x.rows()) + eps);
    y.col(t) = scale * x.col(t).cwiseProduct(g);
  }
}

/// gate = silu(gate) * up
inline void swiglu(activations gate, activations const& up) {
#pragma omp parallel for if (gate.cols() > 16)
  for (Eigen::Index t = 0; t < gate.cols(); ++t) {
    auto g = gate.col(t).array();
    g = g / (1.0f + (-g).exp()) * up.col(t).array();
  }
}

class engine {
 public:
  explicit engine(model const& m) : model_(m), cfg_(m.cfg), frequency_(cfg_.head_dim / 2) {
    for (int i = 0; i < frequency_.size(); ++i) {
      frequency_[i] = 1.0f / float(std::pow(double(cfg_.rope_base), 2.0 * i / cfg_.head_dim));
      if (!cfg_.rope_factors.empty()) frequency_[i] /= cfg_.rope_factors[std::size_t(i)];
    }
    for (int i = 0; i < omp_get_max_threads(); ++i) scratch_.emplace_back(cfg_.head_dim, cfg_.group());
  }

  config const& cfg() const { return cfg_; }
  sequence start(kv_pool& pool) const { return {pool, cfg_.layers, cfg_.kv_heads}; }

  /// Runs the new tokens of every chunk and appends them to the caches.
  /// Returns the logits of each chunk's last `tail` tokens, chunk after chunk; they live until the next call.
  logits forward(std::span<chunk const> batch, record* seen = nullptr) {
    begin(batch, seen);
    for (int l = 0; l < cfg_.layers; ++l) {
      attention_block(batch, l, seen);
      ffn_block(model_.layers[std::size_t(l)]);
    }
    for (auto const& c : batch) c.seq->next_position += int(c.tokens.size());
    return read_out(batch);
  }

  logits prefill(sequence& seq, std::span<int const> tokens, int tail = 1, record* seen = nullptr) {
    chunk const one{&seq, tokens, tail};
    return forward({&one, 1}, seen);
  }

  /// One token for each sequence; their lengths may differ. Returns (B,vocab).
  logits decode(std::span<sequence* const> batch, std::span<int const> tokens, record* seen = nullptr) {
    if (batch.size() != tokens.size()) throw std::invalid_argument("decode: one token per sequence");
    std::vector<chunk> chunks;
    for (std::size_t b = 0; b < batch.size(); ++b) chunks.push_back({batch[b], tokens.subspan(b, 1)});
    return forward(chunks, seen);
  }

 private:
  /// Checks the batch before anything changes; lays out its tokens one after another; looks up embeddings and angles.
  void begin(std::span<chunk const> batch, record* seen) {
    owner_.clear();
    position_.clear();
    first_row_.clear();
    for (auto const& c : batch) {
      if (c.seq->next_position + std::ssize(c.tokens) > cfg_.max_positions) throw std::invalid_argument("the text is longer than the model's positions");
      for (int id : c.tokens)
        if (id < 0 || id >= cfg_.vocab) throw std::invalid_argument("token " + std::to_string(id) + " is outside the vocabulary");
      first_row_.push_back(int(owner_.size()));
      owner_.insert(owner_.end(), c.tokens.size(), int(first_row_.size()) - 1);
      for (std::size_t i = 0; i < c.tokens.size(); ++i) position_.push_back(c.seq->next_position + int(i));
    }
    auto x = rows(x_, cfg_.hidden);  // (T,hidden)
    auto turn = rows(turn_, cfg_.head_dim);  // (T,D): D/2 cosines, D/2 sines
    for (int t = 0; t < tokens(); ++t) {
      auto const& c = batch[std::size_t(owner_[std::size_t(t)])];
      int const id = c.tokens[std::size_t(t - first_row_[std::size_t(owner_[std::size_t(t)])])];
      x.col(t) = Eigen::Map<Eigen::VectorXf const>(model_.embedding.data + std::ptrdiff_t(id) * cfg_.hidden, cfg_.hidden);
      turn.col(t).head(frequency_.size()) = (float(position_[std::size_t(t)]) * frequency_).cos();
      turn.col(t).tail(frequency_.size()) = (float(position_[std::size_t(t)]) * frequency_).sin();
    }
    if (seen) begin_record(batch, *seen);
  }

  void attention_block(std::span<chunk const> batch, int l, record* seen) {
    auto const& w = model_.layers[std::size_t(l)];
    int const D = cfg_.head_dim, Hq = cfg_.heads, H = cfg_.kv_heads;
    auto x = rows(x_, cfg_.hidden), h = rows(h_, cfg_.hidden);               // (T,hidden)
    auto q = rows(q_, Hq * D), k = rows(k_, H * D), v = rows(v_, H * D);     // (T,Hq,D) (T,H,D) (T,H,D)
    auto o = rows(o_, Hq * D), lse = rows(lse_, Hq);                         // (T,Hq,D) (T,Hq)
    rms_norm(x, w.input_norm, cfg_.rms_eps, h);
    linear(w.q, h, q);
    linear(w.k, h, k);
    linear(w.v, h, v);
    store(batch, l, q, k, v);
    attend_all(batch, l, q, o, lse);
    linear(w.o, o, x, into::add);
    if (seen) keep(*seen, l, q, lse);
  }

  void ffn_block(layer_weights const& w) {
    auto x = rows(x_, cfg_.hidden), h = rows(h_, cfg_.hidden);    // (T,hidden)
    auto gate = rows(gate_, cfg_.ffn), up = rows(up_, cfg_.ffn);  // (T,ffn)
    rms_norm(x, w.ffn_norm, cfg_.rms_eps, h);
    linear(w.gate, h, gate);
    linear(w.up, h, up);
    swiglu(gate, up);
    linear(w.down, gate, x, into::add);
  }

  /// Rotates queries and keys, and writes keys, values and positions into the pages.
  void store(std::span<chunk const> batch, int l, activations q, activations k, activations const& v) {
    int const D = cfg_.head_dim, H = cfg_.kv_heads;
    slot_.clear();
    for (auto const& c : batch)
      for (int h = 0; h < H; ++h) slot_.push_back(c.tokens.empty() ? 0 : c.seq->append(l, h, int(c.tokens.size())));  // (B,H)
#pragma omp parallel for if (tokens() > 16)
    for (int t = 0; t < tokens(); ++t) {
      int const b = owner_[std::size_t(t)], i = t - first_row_[std::size_t(b)];
      for (int h = 0; h < cfg_.heads; ++h) rotate(&q(h * D, t), t);
      for (int h = 0; h < H; ++h) {
        rotate(&k(h * D, t), t);
        auto const& pool = batch[std::size_t(b)].seq->pool();
        auto const row = batch[std::size_t(b)].seq->table(l, h).row(slot_[std::size_t(b * H + h)] + i, pool.page_size());
        std::copy_n(&k(h * D, t), D, pool.keys() + row * std::size_t(D));
        std::copy_n(&v(h * D, t), D, pool.values() + row * std::size_t(D));
        pool.positions()[row] = position_[std::size_t(t)];
      }
    }
  }

  /// RoPE, half-split: element i turns with element i + D/2.
  void rotate(float* row, int t) {
    int const half = cfg_.head_dim / 2;
    auto const turn = rows(turn_, cfg_.head_dim).col(t).array();
    Eigen::Map<Eigen::ArrayXf> low(row, half), high(row + half, half);
    for (int i = 0; i < half; ++i) {
      float const a = low[i], b = high[i], cosine = turn[i], sine = turn[half + i];
      low[i] = a * cosine - b * sine;
      high[i] = b * cosine + a * sine;
    }
  }

  void attend_all(std::span<chunk const> batch, int l, activations const& q, activations o, activations lse) {
    int const D = cfg_.head_dim, G = cfg_.group(), step = std::max(1, query_tile / G);
    tasks_.clear();
    for (std::size_t b = 0; b < batch.size(); ++b)
      for (int n = int(batch[b].tokens.size()), end = n; end > 0; end -= step)  // the longest first
        for (int h = 0; h < cfg_.kv_heads; ++h) {
          int const i = std::max(0, end - step), t = first_row_[b] + i;
          auto const& table = batch[b].seq->table(l, h);
          tasks_.push_back({&table, &q(h * G * D, t), &o(h * G * D, t), &lse(h * G, t), end - i, table.length - (n - end)});
        }
#pragma omp parallel for schedule(dynamic)
    for (std::size_t i = 0; i < tasks_.size(); ++i)
      attend(batch[0].seq->pool(), tasks_[i], cfg_.heads, G, scratch_[std::size_t(omp_get_thread_num())]);
  }

  logits read_out(std::span<chunk const> batch) {
    int count = 0;
    for (auto const& c : batch) count += tail(c, c.tail);
    auto const x = rows(x_, cfg_.hidden);                                                      // (T,hidden)
    auto last = h_(cfg_.hidden, count), normed = q_(cfg_.hidden, count), out = out_(cfg_.vocab, count);  // (rows,...)
    for (int b = 0, row = 0; b < std::ssize(batch); ++b) {
      auto const& c = batch[std::size_t(b)];
      int const n = tail(c, c.tail);
      last.middleCols(row, n) = x.middleCols(first_row_[std::size_t(b)] + std::ssize(c.tokens) - n, n);
      row += n;
    }
    rms_norm(last, model_.norm, cfg_.rms_eps, normed);
    linear(model_.output, normed, out);
    return {out.data(), count, cfg_.vocab};
  }

  void begin_record(std::span<chunk const> batch, record& seen) const {
    seen.queries.assign(std::size_t(cfg_.layers), {});
    seen.lse.assign(std::size_t(cfg_.layers), {});
    seen.positions.clear();
    seen.row_begin.assign(1, 0);
    for (std::size_t b = 0; b < batch.size(); ++b) {
      auto const end = position_.begin() + first_row_[b] + std::ssize(batch[b].tokens);
      seen.positions.insert(seen.positions.end(), end - tail(batch[b], seen.tail), end);
      seen.row_begin.push_back(int(seen.positions.size()));
    }
  }

  void keep(record& seen, int l, activations const& q, activations const& lse) const {
    auto const copy = [&](activations const& from, std::vector<float>& to) {
      for (std::size_t b = 0; b + 1 < seen.row_begin.size(); ++b) {
        auto const end = b + 1 < first_row_.size() ? first_row_[b + 1] : tokens();
        auto const* const last = from.data() + end * from.rows();
        to.insert(to.end(), last - (seen.row_begin[b + 1] - seen.row_begin[b]) * from.rows(), last);
      }
    };
    copy(q, seen.queries[std::size_t(l)]);
    copy(lse, seen.lse[std::size_t(l)]);
  }

  static int tail(chunk const& c, int wanted) { return std::min(wanted, int(c.tokens.size())); }
  int tokens() const { return int(owner_.size()); }
  activations rows(buffer& b, int features) { return b(features, tokens()); }

  model const& model_;
  config cfg_;
  Eigen::ArrayXf frequency_;                                     // (D/2)
  buffer x_, h_, q_, k_, v_, o_, lse_, gate_, up_, turn_, out_;
  std::vector<int> owner_, position_, first_row_, slot_;         // chunk and position of a token; first token of a chunk
  std::vector<attention_task> tasks_;
  std::vector<attention_scratch> scratch_;                       // one per thread
};

inline int argmax(logits const& l, int row) {
  Eigen::Index best = 0;
  l.row(row).maxCoeff(&best);
  return int(best);
}

}  // namespace llama
