// SPDX-License-Identifier: Apache-2.0
// The forward pass: any mix of prefill chunks and decode steps of several sequences in one batch.
#pragma once

#include <omp.h>

#include <functional>

#include "attention.hpp"
#include "cache.hpp"
#include "model.hpp"

#ifdef EIGEN_USE_BLAS
extern "C" int openblas_get_parallel(void);  // 0: it was built for programs of one thread
#endif

namespace llama {

using activations = Eigen::MatrixXf;  // a column is one token, so (T,features) in memory
using row_major = Eigen::Map<Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> const>;
using logits = row_major;
using layer_rows = std::vector<std::vector<float>>;

/// New tokens of one sequence: a prompt, a further piece of it, or one token of a decode step.
struct chunk {
  sequence* seq;
  std::span<int const> tokens;
  int tail = 1;  // logits are computed for so many of the last tokens
};

/// What a pass saw, for eviction afterwards. The rows are the last `tail` tokens of each chunk, chunk after chunk.
struct record {
  int tail = std::numeric_limits<int>::max();
  bool inputs = false;                  // keep the layers' inputs, too
  layer_rows queries;                   // L x (rows,Hq,D), rotated
  layer_rows lse;                       // L x (rows,Hq), natural log
  layer_rows input;                     // L x (rows,hidden), normalised, or empty
  std::vector<std::int32_t> positions;  // (rows)
  std::vector<std::int32_t> row_begin;  // (B+1)
};

/// Gates for one pass: `decide` reads a layer's normalised input (T,hidden) when the new keys are stored, and fills
/// pool.keep().
struct gating {
  std::function<void(int layer, activations const& input)> decide;
  visibility sees;
};

enum class into { set, add };

/// y = W x or y += W x, in tiles that the threads share.
inline void linear(tensor const& w, activations const& x, activations& y, into how = into::set) {
  int const T = int(x.cols()), height = T < 128 ? 96 : 192, width = 256;
  if (how == into::set) y.resize(w.rows, T);
#pragma omp parallel for collapse(2) schedule(dynamic)
  for (int t = 0; t < T; t += width)
    for (int o = 0; o < w.rows; o += height) {
      auto tile = y.block(o, t, std::min(height, w.rows - o), std::min(width, T - t));
      if (how == into::set) tile.setZero();
      tile.noalias() += row_major(w.data, w.rows, w.cols).middleRows(o, tile.rows()) * x.middleCols(t, tile.cols());
    }
}

inline void rms_norm(activations const& x, tensor const& gain, float eps, activations& y) {
  y.resize(x.rows(), x.cols());
#pragma omp parallel for if (x.cols() > 16)
  for (Eigen::Index t = 0; t < x.cols(); ++t) {
    float const scale = 1.0f / std::sqrt(x.col(t).squaredNorm() / float(x.rows()) + eps);
    y.col(t) = scale * x.col(t).cwiseProduct(vector_map(gain.data, gain.rows));
  }
}

class engine {
 public:
  explicit engine(model const& m) : model_(m), frequency_(m.cfg.head_dim / 2) {
#ifdef EIGEN_USE_BLAS
    if (openblas_get_parallel() == 0 && omp_get_max_threads() > 1)
      throw model_error(
          "this OpenBLAS gives wrong products to several threads; install libopenblas-openmp-dev, or set "
          "OMP_NUM_THREADS=1");
#endif
    for (int i = 0; i < frequency_.size(); ++i) {
      frequency_[i] = 1.0f / float(std::pow(double(cfg().rope_base), 2.0 * i / cfg().head_dim));
      if (!cfg().rope_factors.empty()) frequency_[i] /= cfg().rope_factors[i];
    }
    for (int i = 0; i < omp_get_max_threads(); ++i) scratch_.emplace_back(cfg().head_dim, cfg().group());
  }

  config const& cfg() const { return model_.cfg; }
  layer_weights const& weights(int layer) const { return model_.layers[std::size_t(layer)]; }
  sequence start(kv_pool& pool) const { return {pool, cfg().layers, cfg().kv_heads}; }

  /// Runs the new tokens of every chunk and appends them to the caches, all in one pool.
  /// Returns the logits of each chunk's last `tail` tokens, chunk after chunk; they live until the next call.
  /// Under gates each token sees what they keep, and itself.
  logits forward(std::span<chunk const> batch, record* seen = nullptr, gating const* gates = nullptr) {
    check(batch);
    lay_out(batch);
    layer_rows const none(model_.layers.size());
    if (seen) *seen = {seen->tail, seen->inputs, none, none, none, {}, {0}};
    for (int l = 0; l < cfg().layers; ++l) {
      attention_block(batch, l, seen, gates);
      if (seen) keep(batch, l, *seen);
      ffn_block(model_.layers[l]);
    }
    auto const out = read_out(batch);
    for (auto const& c : batch) c.seq->next_position += int(c.tokens.size());
    return out;
  }

  logits prefill(sequence& seq, std::span<int const> tokens, int tail = 1, record* seen = nullptr,
                 gating const* gates = nullptr) {
    chunk const one{&seq, tokens, tail};
    return forward({&one, 1}, seen, gates);
  }

  /// One token for each sequence; their lengths may differ. Returns (B,vocab).
  logits decode(std::span<sequence* const> batch, std::span<int const> tokens, record* seen = nullptr) {
    std::vector<chunk> chunks;
    for (auto& seq : batch) chunks.push_back({seq, tokens.subspan(chunks.size(), 1)});
    return forward(chunks, seen);
  }

 private:
  struct place {
    int chunk, index, position;
  };

  /// Refuses a batch before anything has changed.
  void check(std::span<chunk const> batch) const {
    int pages = 0;
    auto const refuse = [](bool wrong, std::string const& why) {
      if (wrong) throw std::invalid_argument(why);
    };
    refuse(batch.empty(), "a pass without a sequence; give it a chunk of tokens");
    for (auto const& c : batch) {
      refuse(c.tokens.empty(), "a sequence has no new tokens in this pass; leave it out of the batch");
      refuse(&c.seq->pool() != &batch[0].seq->pool(), "all sequences of a batch must share one pool");
      refuse(c.seq->next_position + std::ssize(c.tokens) > cfg().max_positions,
             "a text of " + std::to_string(c.seq->next_position + std::ssize(c.tokens)) +
                 " tokens is longer than the model's " + std::to_string(cfg().max_positions) + " positions");
      for (int id : c.tokens) refuse(id < 0 || id >= cfg().vocab, "a token is outside the vocabulary");
      pages += c.seq->pages_for(int(c.tokens.size()));
    }
    batch[0].seq->pool().expect_free(pages);
  }

  /// The tokens of all chunks one after another, with their embeddings and angles.
  void lay_out(std::span<chunk const> batch) {
    places_.clear();
    for (auto const& c : batch)
      for (int i = 0; i < std::ssize(c.tokens); ++i)
        places_.push_back({int(&c - batch.data()), i, c.seq->next_position + i});
    x_.resize(cfg().hidden, std::ssize(places_));
    turn_.resize(cfg().head_dim, std::ssize(places_));
    for (int t = 0; t < std::ssize(places_); ++t) {
      auto const [b, i, position] = places_[t];
      x_.col(t) = vector_map(model_.embedding.data + std::ptrdiff_t(batch[b].tokens[i]) * cfg().hidden, cfg().hidden);
      turn_.col(t) << (float(position) * frequency_).cos(), (float(position) * frequency_).sin();
    }
  }

  void attention_block(std::span<chunk const> batch, int l, record* seen, gating const* gates) {
    auto const& w = model_.layers[l];
    rms_norm(x_, w.input_norm, cfg().rms_eps, h_);
    linear(w.q, h_, q_);
    linear(w.k, h_, k_);
    linear(w.v, h_, v_);
    store(batch, l);
    if (seen && seen->inputs) keep_rows(batch, h_, *seen, seen->input[l]);
    if (gates) gates->decide(l, h_);
    attend_all(batch, l, gates ? &gates->sees : nullptr);
    linear(w.o, h_, x_, into::add);
  }

  void ffn_block(layer_weights const& w) {
    rms_norm(x_, w.ffn_norm, cfg().rms_eps, h_);
    linear(w.gate, h_, gate_);
    linear(w.up, h_, up_);
#pragma omp parallel for if (gate_.cols() > 16)
    for (Eigen::Index t = 0; t < gate_.cols(); ++t)
      gate_.col(t).array() *= up_.col(t).array() / (1.0f + (-gate_.col(t).array()).exp());  // silu(gate) * up
    linear(w.down, gate_, x_, into::add);
  }

  /// Rotates queries and keys, and writes keys, values and positions into the pages.
  void store(std::span<chunk const> batch, int l) {
    int const D = cfg().head_dim, H = cfg().kv_heads;
    first_slot_.clear();
    for (auto const& c : batch)
      for (int h = 0; h < H; ++h) first_slot_.push_back(c.seq->append(l, h, int(c.tokens.size())));
#pragma omp parallel for if (places_.size() > 16)
    for (int t = 0; t < std::ssize(places_); ++t) {
      auto const [b, i, position] = places_[t];
      auto const& seq = *batch[b].seq;
      auto const& pool = seq.pool();
      for (int h = 0; h < cfg().heads; ++h) rotate(&q_(h * D, t), t);
      for (int h = 0; h < H; ++h) {
        auto const row = seq.table(l, h).row(first_slot_[b * H + h] + i, pool.page_size());
        rotate(&k_(h * D, t), t);
        std::copy_n(&k_(h * D, t), D, pool.keys() + row * D);
        std::copy_n(&v_(h * D, t), D, pool.values() + row * D);
        pool.positions()[row] = position;
      }
    }
  }

  /// RoPE, half-split: element i turns with element i + D/2.
  void rotate(float* low, int t) const {
    float* const high = low + frequency_.size();
    for (Eigen::Index i = 0; i < frequency_.size(); ++i) {
      float const a = low[i], b = high[i], cosine = turn_(i, t), sine = turn_(frequency_.size() + i, t);
      low[i] = a * cosine - b * sine;
      high[i] = b * cosine + a * sine;
    }
  }

  void attend_all(std::span<chunk const> batch, int l, visibility const* flags) {
    int const G = cfg().group(), width = G * cfg().head_dim, step = std::max(1, query_tile / G);
    h_.resize(q_.rows(), q_.cols());
    lse_.resize(cfg().heads, q_.cols());
    tasks_.clear();
    for (int t = 0; auto const& c : batch) {
      t += int(c.tokens.size());  // behind this chunk's last token
      for (int after = 0; after < std::ssize(c.tokens); after += step)
        for (int h = 0; h < cfg().kv_heads; ++h) {  // the last tokens first: they see most
          auto const& table = c.seq->table(l, h);
          int const n = std::min(step, int(c.tokens.size()) - after), at = t - after - n;
          tasks_.push_back(
              {&table, &q_(h * width, at), &h_(h * width, at), &lse_(h * G, at), n, table.length - after, flags});
        }
    }
#pragma omp parallel for schedule(dynamic)
    for (std::size_t i = 0; i < tasks_.size(); ++i)
      attend(batch[0].seq->pool(), tasks_[i], cfg().heads, G, scratch_[omp_get_thread_num()]);
  }

  bool in_tail(std::span<chunk const> batch, place const& p, int tail) const {
    return std::ssize(batch[p.chunk].tokens) - p.index <= tail;
  }

  logits read_out(std::span<chunk const> batch) {
    Eigen::Index count = 0;
    for (auto const& p : places_)
      if (in_tail(batch, p, batch[p.chunk].tail)) x_.col(count++) = x_.col(&p - places_.data());
    x_.conservativeResize(Eigen::NoChange, count);  // (rows,hidden)
    rms_norm(x_, model_.norm, cfg().rms_eps, h_);
    linear(model_.output, h_, out_);  // (rows,vocab)
    if (!out_.allFinite()) refuse_logits();
    return {out_.data(), count, cfg().vocab};
  }

  /// A NaN among the logits would make token 0 the best one. The sequences of the pass cannot be used any more.
  [[noreturn]] void refuse_logits() const {
    std::string const name = model_.file.damaged();
    if (name.empty()) throw model_error("the logits are not finite, though all weights are; another model is needed");
    throw model_error("the logits are not finite, as tensor " + name +
                      " holds what is not a finite number; prepare the model again");
  }

  /// The columns of the tail's tokens, appended.
  void keep_rows(std::span<chunk const> batch, activations const& x, record const& seen, std::vector<float>& to) const {
    for (auto const& p : places_)
      if (in_tail(batch, p, seen.tail))
        to.insert(to.end(), x.col(&p - places_.data()).data(), x.col(&p - places_.data()).data() + x.rows());
  }

  void keep(std::span<chunk const> batch, int l, record& seen) const {
    keep_rows(batch, q_, seen, seen.queries[l]);
    keep_rows(batch, lse_, seen, seen.lse[l]);
    if (l > 0) return;
    for (auto const& p : places_)
      if (in_tail(batch, p, seen.tail)) seen.positions.push_back(p.position);
    for (auto const& c : batch)
      seen.row_begin.push_back(seen.row_begin.back() + std::min(seen.tail, int(c.tokens.size())));
  }

  model const& model_;
  Eigen::ArrayXf frequency_;                  // (D/2)
  activations x_, h_, q_, k_, v_;             // (T,hidden) (T,hidden or Hq*D) (T,Hq,D) (T,H,D) (T,H,D)
  activations turn_, lse_, gate_, up_, out_;  // (T,D) cosines, sines; (T,Hq) (T,ffn) (T,ffn) (rows,vocab)
  std::vector<place> places_;                 // (T)
  std::vector<int> first_slot_;               // (B,H)
  std::vector<attention_task> tasks_;
  std::vector<attention_scratch> scratch_;  // one per thread
};

inline int argmax(logits const& l, int row) {
  if (row < 0 || row >= l.rows()) throw std::out_of_range("there are no logits of that row");
  auto const r = l.row(row);
  return int(std::max_element(r.data(), r.data() + r.size()) - r.data());
}

}  // namespace llama
