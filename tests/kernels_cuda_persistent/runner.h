// The persistent kernel with everything it needs on the device, for tests and the benchmark.
#pragma once

#include <vector>

#include "kernels/cuda/persistent/context.cuh"
#include "kernels/cuda/persistent/decode.h"
#include "tests/kernels_cuda_persistent/random_model.h"

namespace hgrn2::cuda::test {

struct RunnerOptions {
  int slots = 32;
  DType state_dtype = DType::kF16;
  int ring_length = 16;
  int inflight_kib = 0;
  persistent::Exchange exchange = persistent::Exchange::kAuto;
};

class Runner {
 public:
  Runner(const ModelView& view, const RunnerOptions& options) : view_(view), options_(options) {
    const persistent::ModelShape shape = persistent::ShapeOf(view);
    int blocks = 0;
    CHECK_CUDA(cudaDeviceGetAttribute(&blocks, cudaDevAttrMultiProcessorCount, 0));
    const char* why = "";
    if (!persistent::Supports(view, options.state_dtype, options.ring_length, 90, &why)) {
      std::fprintf(stderr, "unsupported: %s\n", why);
      std::exit(1);
    }
    persistent::DecodeParams& p = params_;
    p.shape = shape;
    p.heads = view.heads;
    p.head_dim = view.head_dim;
    p.norm_eps = view.norm_eps;
    p.g_norm_eps = view.g_norm_eps;
    p.final_norm = view.final_norm;
    p.embeddings = view.embeddings;
    p.blocks = blocks;
    p.ranges = Upload(persistent::AssignTiles(shape, blocks));
    void* packed = Allocate(shape.PackedBytes(), 0xff);
    CHECK_CUDA(persistent::PackWeights(view, packed, nullptr));
    p.weights = packed;
    // Poisoned where the kernel must not depend on what was there before.
    p.workspace = Allocate(persistent::WorkspaceBytes(shape, persistent::kMaxBatch), 0xff);
    CHECK_CUDA(cudaMemset(p.workspace, 0, sizeof(persistent::WorkspaceHeader)));
    p.logits =
        static_cast<float*>(Allocate(sizeof(float) * persistent::kMaxBatch * shape.vocab, 0xff));
    p.state_dtype = options.state_dtype;
    p.ring_length = options.ring_length;
    p.age = static_cast<int32_t*>(Allocate(sizeof(int32_t) * options.slots, 0));
    p.advance_ages = true;
    p.inflight_kib = options.inflight_kib;
    p.exchange = options.exchange;
    MakeLayers();
    tokens_ = static_cast<int32_t*>(Allocate(4 * persistent::kMaxBatch, 0));
    slots_ = static_cast<int32_t*>(Allocate(4 * persistent::kMaxBatch, 0));
    CHECK_CUDA(cudaDeviceSynchronize());
  }

  persistent::DecodeParams& params() { return params_; }
  void* StateOf(int layer) { return states_[layer]; }

  void SetBatch(const std::vector<int32_t>& tokens, const std::vector<int32_t>& slots) {
    CHECK_CUDA(cudaMemcpy(tokens_, tokens.data(), tokens.size() * 4, cudaMemcpyHostToDevice));
    CHECK_CUDA(cudaMemcpy(slots_, slots.data(), slots.size() * 4, cudaMemcpyHostToDevice));
    params_.tokens = tokens_;
    params_.slots = slots_;
    params_.batch = static_cast<int32_t>(tokens.size());
  }

  // Logits [batch][vocab].
  std::vector<float> Step(const std::vector<int32_t>& tokens, const std::vector<int32_t>& slots) {
    SetBatch(tokens, slots);
    std::vector<float> logits(tokens.size() * params_.shape.vocab);
    CHECK_CUDA(cudaMemset(params_.logits, 0xff, logits.size() * 4));
    CHECK_CUDA(persistent::LaunchDecode(params_, nullptr));
    CHECK_CUDA(cudaDeviceSynchronize());
    CHECK_CUDA(
        cudaMemcpy(logits.data(), params_.logits, logits.size() * 4, cudaMemcpyDeviceToHost));
    return logits;
  }

  static void* Allocate(size_t bytes, int fill) {
    void* p = nullptr;
    CHECK_CUDA(cudaMalloc(&p, bytes));
    CHECK_CUDA(cudaMemset(p, fill, bytes));
    return p;
  }

 private:
  void MakeLayers() {
    std::vector<persistent::LayerPointers> layers;
    const int64_t numbers = int64_t{options_.slots} * view_.d * view_.head_dim;
    for (int l = 0; l < view_.num_layers; ++l) {
      const LayerView& v = view_.layers[l];
      persistent::LayerPointers y;
      y.attn_norm = v.attn_norm, y.g_norm = v.g_norm, y.mlp_norm = v.mlp_norm;
      y.lower_bound = v.lower_bound;
      y.scale[0] = v.qfi.scale, y.scale[1] = v.o.scale, y.scale[2] = v.gate_up.scale;
      y.scale[3] = v.down.scale;
      y.state = Allocate(numbers * SizeOf(options_.state_dtype), 0);
      if (options_.ring_length > 1) {
        y.ring_entries = Allocate(
            ReplayRingBytes(options_.slots, options_.ring_length, view_.d, DType::kBF16), 0xff);
      }
      y.ring_phase = l;
      states_.push_back(y.state);
      layers.push_back(y);
    }
    params_.layers = Upload(layers);
  }

  const ModelView view_;
  const RunnerOptions options_;
  persistent::DecodeParams params_;
  std::vector<void*> states_;
  int32_t* tokens_ = nullptr;
  int32_t* slots_ = nullptr;
};

}  // namespace hgrn2::cuda::test
