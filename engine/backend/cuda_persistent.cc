#include "engine/backend/cuda_persistent.h"

#include <vector>

#include "engine/backend/cuda_status.h"
#include "kernels/cuda/mlp/mlp.h"

namespace hgrn2 {

namespace p = cuda::persistent;

int64_t CudaPersistentDecode::Bytes(const CudaSizes& sizes, int compute_capability) {
  const ModelConfig& c = sizes.config;
  // What Supports and ShapeOf look at, without memory behind it.
  const DType layer_type = sizes.fp8_weights ? DType::kF8E4M3 : sizes.activation;
  cuda::LayerView layer;
  for (cuda::MatrixView* matrix : {&layer.qfi, &layer.o, &layer.gate_up, &layer.down}) {
    matrix->type = layer_type;
  }
  const std::vector<cuda::LayerView> layers(c.num_layers, layer);
  cuda::ModelView view;
  view.d = c.hidden_size, view.m = c.intermediate_size;
  view.heads = c.num_heads, view.head_dim = c.head_dim;
  view.vocab = c.vocab_size, view.num_layers = c.num_layers, view.conv_size = c.conv_size;
  view.activation_type = sizes.activation;
  view.lm_head.type = sizes.activation;
  view.layers = layers.data();
  const char* why = "";
  if (!p::Supports(view, sizes.state_dtype, sizes.ring_length, compute_capability, &why)) return 0;
  const p::ModelShape shape = p::ShapeOf(view);
  return shape.PackedBytes() + static_cast<int64_t>(p::WorkspaceBytes(shape, p::kMaxBatch));
}

absl::StatusOr<std::unique_ptr<CudaPersistentDecode>> CudaPersistentDecode::Create(
    const CudaModel& model, const CudaSizes& sizes, CudaBuffers& buffers, int compute_capability,
    int multiprocessors, cudaStream_t stream, const char** why) {
  *why = "";
  if (!p::Supports(model.view(), sizes.state_dtype, sizes.ring_length, compute_capability, why)) {
    return nullptr;
  }
  std::unique_ptr<CudaPersistentDecode> decode(new CudaPersistentDecode(model, sizes, buffers));
  RETURN_IF_ERROR(decode->Init(multiprocessors, stream));
  return decode;
}

absl::Status CudaPersistentDecode::Init(int multiprocessors, cudaStream_t stream) {
  p::DecodeParams& d = params_;
  d.shape = p::ShapeOf(model_);
  d.heads = model_.heads, d.head_dim = model_.head_dim;
  d.norm_eps = model_.norm_eps, d.g_norm_eps = model_.g_norm_eps;
  d.final_norm = model_.final_norm;
  d.embeddings = model_.embeddings;
  d.blocks = multiprocessors;
  ASSIGN_OR_RETURN(void* packed, memory_.Allocate(d.shape.PackedBytes(), "packed weights"));
  CUDA_RETURN_IF_ERROR(p::PackWeights(model_, packed, stream));
  d.weights = packed;
  const size_t workspace = p::WorkspaceBytes(d.shape, p::kMaxBatch);
  ASSIGN_OR_RETURN(d.workspace, memory_.Allocate(workspace, "persistent decode workspace"));
  CUDA_RETURN_IF_ERROR(cudaMemsetAsync(d.workspace, 0, workspace, stream));

  std::vector<p::LayerPointers> layers(model_.num_layers);
  for (int32_t l = 0; l < model_.num_layers; ++l) {
    const cuda::LayerView& w = model_.layers[l];
    layers[l].attn_norm = w.attn_norm, layers[l].g_norm = w.g_norm;
    layers[l].mlp_norm = w.mlp_norm, layers[l].lower_bound = w.lower_bound;
    const cuda::MatrixView* products[] = {&w.qfi, &w.o, &w.gate_up, &w.down};
    for (int i = 0; i < p::kProductsPerLayer; ++i) layers[l].scale[i] = products[i]->scale;
    layers[l].state = buffers_.state[l].state;
    layers[l].ring_entries = buffers_.ring[l];
    layers[l].ring_phase = l % sizes_.ring_length;
  }
  p::LayerPointers* device_layers = nullptr;
  RETURN_IF_ERROR(memory_.Take(&device_layers, layers.size(), "layer pointers"));
  CUDA_RETURN_IF_ERROR(cudaMemcpyAsync(device_layers, layers.data(),
                                       layers.size() * sizeof(layers[0]), cudaMemcpyHostToDevice,
                                       stream));
  d.layers = device_layers;
  const std::vector<p::TileRange> ranges = p::AssignTiles(d.shape, d.blocks);
  p::TileRange* device_ranges = nullptr;
  RETURN_IF_ERROR(memory_.Take(&device_ranges, ranges.size(), "tile ranges"));
  CUDA_RETURN_IF_ERROR(cudaMemcpyAsync(device_ranges, ranges.data(),
                                       ranges.size() * sizeof(ranges[0]), cudaMemcpyHostToDevice,
                                       stream));
  d.ranges = device_ranges;
  d.state_dtype = sizes_.state_dtype;
  d.ring_length = sizes_.ring_length;
  d.age = buffers_.age;
  d.advance_ages = true;
  d.tokens = buffers_.resolved_tokens;
  d.logits = buffers_.logits;
  return CudaStatus(cudaStreamSynchronize(stream), "packing weights");
}

absl::Status CudaPersistentDecode::Run(const StepShape& shape, int32_t batch, cudaStream_t stream) {
  const auto array = [&](const StepArray& a) { return buffers_.step_device + a.offset; };
  cuda::EmbedParams resolve;
  resolve.table_type = model_.activation_type;
  resolve.tokens = reinterpret_cast<const int32_t*>(array(shape.tokens));
  resolve.slots = reinterpret_cast<const int32_t*>(array(shape.token_slots));
  resolve.last_token = buffers_.last_token;
  resolve.resolved = buffers_.resolved_tokens;
  resolve.step = buffers_.step;
  resolve.rows = batch;
  resolve.d = model_.d;
  CUDA_RETURN_IF_ERROR(cuda::Embed(resolve, stream));
  p::DecodeParams d = params_;
  d.slots = reinterpret_cast<const int32_t*>(array(shape.decode_slots));
  d.reset = array(shape.decode_reset);
  d.batch = batch;
  return CudaStatus(p::LaunchDecode(d, stream), "persistent decode");
}

}  // namespace hgrn2
