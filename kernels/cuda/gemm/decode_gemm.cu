// The host's part of the product kernels.
#include <algorithm>

#include "kernels/cuda/gemm/decode_gemm.h"
#include "kernels/cuda/gemm/decode_gemm_kernel.cuh"

namespace hgrn2::cuda {
namespace gemm {
namespace {

using EncodeFunction = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*,
                                    const cuuint64_t*, const cuuint64_t*, const cuuint32_t*,
                                    const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle,
                                    CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
EncodeFunction encode = nullptr;

// Past the end of a dimension are zeros.
bool MakeMap(const void* data, bool fp8, int dimensions, const cuuint64_t* sizes,
             const cuuint64_t* strides, const cuuint32_t* box, CUtensorMap* map) {
  constexpr cuuint32_t kSteps[5] = {1, 1, 1, 1, 1};
  return encode(map, fp8 ? CU_TENSOR_MAP_DATA_TYPE_UINT8 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                static_cast<cuuint32_t>(dimensions), const_cast<void*>(data), sizes, strides, box,
                kSteps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

bool MakeTokenMap(const void* data, int64_t rows, int64_t cols, bool fp8, int box_rows,
                  CUtensorMap* map) {
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(cols), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(cols) * (fp8 ? 1 : 2)};
  const cuuint32_t box[2] = {fp8 ? 128u : 64u, static_cast<cuuint32_t>(box_rows)};
  return MakeMap(data, fp8, 2, sizes, strides, box, map);
}

// How the rows of a box follow each other: three dimensions of sixteen rows, and the sixteens.
struct RowOrder {
  cuuint32_t sizes[3];
  cuuint64_t steps[4];  // in rows
};
// The order of wgmma's fragment (Quad): of sixteen, row 4 q + 2 j + e is at 8 j + 2 q + e.
constexpr RowOrder kQuadOrder = {{2, 4, 2}, {1, 4, 2, 16}};
constexpr RowOrder kInOrder = {{8, 2, 1}, {1, 8, 16, 16}};
// Eight rows of gate, then eight of up.
RowOrder GateUpOrder(int64_t rows) {
  return {{8, 2, 1}, {1, static_cast<cuuint64_t>(rows / 2), 16, 8}};
}

bool MakeWeightMap(const void* data, int64_t rows, int64_t cols, bool fp8, const RowOrder& order,
                   int box_rows, CUtensorMap* map) {
  const auto row_bytes = static_cast<cuuint64_t>(cols) * (fp8 ? 1 : 2);
  const cuuint32_t(&sizes)[3] = order.sizes;
  const cuuint64_t all[5] = {static_cast<cuuint64_t>(cols), sizes[0], sizes[1], sizes[2],
                             static_cast<cuuint64_t>(rows / 16)};
  cuuint64_t strides[4];
  for (int i = 0; i < 4; ++i) strides[i] = row_bytes * order.steps[i];
  const cuuint32_t box[5] = {fp8 ? 128u : 64u, sizes[0], sizes[1], sizes[2],
                             static_cast<cuuint32_t>(box_rows / 16)};
  return MakeMap(data, fp8, 5, all, strides, box, map);
}

Kernel KernelOf(bool fp8, const DecodeGemmShape& shape, GemmEpilogue epilogue) {
  if (shape.columns > 0) return fp8 ? nullptr : ColumnKernelFor(shape.columns, epilogue);
  if (shape.wide) return WideKernelFor(fp8, shape, epilogue);
  return fp8 ? KernelFor<true>(shape, epilogue) : KernelFor<false>(shape, epilogue);
}

// Of every instance for the cut.
cudaError_t AllowSharedMemory(const DecodeGemmShape& shape) {
  const int bytes = shape.wide ? kWideShared + 1024 : 224 * 1024;
  for (const bool fp8 : {false, true}) {
    for (const GemmEpilogue epilogue :
         {GemmEpilogue::kStore, GemmEpilogue::kSwiGlu, GemmEpilogue::kResidual}) {
      const Kernel kernel = KernelOf(fp8, shape, epilogue);
      if (kernel == nullptr) continue;
      HGRN2_CUDA_RETURN_IF_ERROR(
          cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    }
  }
  return cudaSuccess;
}

bool Complete(const DecodeGemmParams& q) {
  const bool fp8 = q.weight.type == DType::kF8E4M3;
  if (fp8 && !q.weight.scale) return false;
  switch (q.epilogue) {
    case GemmEpilogue::kStore:
      return q.out && (q.out_type == DType::kF32 || q.out_type == DType::kBF16);
    case GemmEpilogue::kSwiGlu:
      return q.out != nullptr;
    case GemmEpilogue::kResidual:
      return q.residual && (!q.next_norm || (q.out && q.square_sums_out &&
                                             (!fp8 || (q.residual_norm && q.out_scale))));
  }
  return false;
}

}  // namespace
}  // namespace gemm

cudaError_t InitDecodeGemm() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found;
  HGRN2_CUDA_RETURN_IF_ERROR(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function,
                                                              12000, cudaEnableDefault, &found));
  if (found != cudaDriverEntryPointSuccess) return cudaErrorNotSupported;
  int major = 0;
  HGRN2_CUDA_RETURN_IF_ERROR(DeviceAttribute(cudaDevAttrComputeCapabilityMajor, &major));
  if (major != 9) return cudaErrorNotSupported;
  gemm::encode = reinterpret_cast<gemm::EncodeFunction>(function);
  for (const int groups : {1, 2, 3}) {
    for (const int row_tile : kDecodeGemmRowTiles) {
      for (const int split : kDecodeGemmSplits) {
        for (const bool share : {false, true}) {
          DecodeGemmShape shape;
          shape.groups = groups, shape.row_tile = row_tile;
          shape.split = split, shape.share = share;
          HGRN2_CUDA_RETURN_IF_ERROR(gemm::AllowSharedMemory(shape));
        }
      }
    }
  }
  for (const int columns : kColumnGemmTiles) {
    DecodeGemmShape shape;
    shape.columns = columns;
    HGRN2_CUDA_RETURN_IF_ERROR(gemm::AllowSharedMemory(shape));
  }
  for (const int row_tile : kWideGemmRowTiles) {
    for (const bool together : {false, true}) {
      DecodeGemmShape shape;
      shape.wide = true, shape.row_tile = row_tile, shape.together = together;
      HGRN2_CUDA_RETURN_IF_ERROR(gemm::AllowSharedMemory(shape));
    }
  }
  return cudaSuccess;
}

cudaError_t DecodeGemm(const DecodeGemmParams& q, cudaStream_t stream) {
  const MatrixView& w = q.weight;
  return DecodeGemm(q, ChooseDecodeGemm(w.rows, w.cols, q.tokens, w.type, q.epilogue), stream);
}

cudaError_t DecodeGemm(const DecodeGemmParams& q, const DecodeGemmShape& shape,
                       cudaStream_t stream) {
  const MatrixView& w = q.weight;
  if (shape.row_tile == 0 || gemm::encode == nullptr || !gemm::Complete(q)) {
    return cudaErrorInvalidValue;
  }
  const bool fp8 = w.type == DType::kF8E4M3;
  const gemm::Kernel kernel = gemm::KernelOf(fp8, shape, q.epilogue);
  gemm::KernelParams p;
  // Rows past the tokens are copied too (decode_gemm.h) but where it does not pay: bfloat16 with
  // one tile of tokens. There is no room for the tile behind an odd last one.
  int read = shape.token_tiles * shape.token_tile();
  if (shape.wide) read = static_cast<int>(CeilDiv(q.tokens, kWideTokenTile)) * kWideTokenTile;
  if (!fp8 && shape.token_tiles == 1) read = q.tokens;
  const bool gate_up = q.epilogue == GemmEpilogue::kSwiGlu;
  const gemm::RowOrder order = shape.columns == 0 ? gemm::kQuadOrder
                               : gate_up          ? gemm::GateUpOrder(w.rows)
                                                  : gemm::kInOrder;
  const int box_rows = shape.columns > 0 ? shape.row_tile : shape.row_tile / 2;
  if (kernel == nullptr ||
      !gemm::MakeWeightMap(w.data, w.rows, w.cols, fp8, order, box_rows, &p.weight) ||
      !gemm::MakeTokenMap(q.x, read, w.cols, fp8, shape.token_tile(), &p.x)) {
    return cudaErrorInvalidValue;
  }
  p.weight_scale = fp8 ? w.scale : nullptr;
  p.x_scale = fp8 ? q.x_scale : nullptr;
  p.square_sums = q.square_sums;
  p.num_square_sums = q.num_square_sums;
  p.eps = q.eps;
  p.norm_out = q.norm_out;
  p.out = q.out;
  p.out_f32 = q.out_type == DType::kF32;
  p.residual = q.residual;
  p.next_norm = q.next_norm;
  p.square_sums_out = q.square_sums_out;
  p.squares = q.squares;
  p.next_squares = q.next_squares;
  p.square_unit = SwiGluSquareUnit(gate_up ? w.rows / 2 : w.cols);
  p.residual_norm = q.residual_norm;
  p.largest_row_norm = q.largest_row_norm;
  p.largest_next_norm = q.largest_next_norm;
  p.out_scale = q.out_scale;
  p.rows = static_cast<int>(w.rows);
  p.half_rows = gate_up ? static_cast<int>(w.rows / 2) : 0;
  p.cols = static_cast<float>(w.cols);
  p.tokens = q.tokens;
  p.token_tiles = shape.token_tiles;
  p.k_blocks = static_cast<int>(CeilDiv(w.cols * (fp8 ? 1 : 2), gemm::kBlockBytes));
  p.stages = shape.stages;
  p.received = shape.received;
  p.pairs = shape.blocks() / 2;
  p.row_tiles = shape.row_tiles;
  cudaLaunchConfig_t config = {};
  const int threads = shape.wide ? gemm::kWideThreads : gemm::Threads(shape.groups);
  int blocks = shape.blocks();
  if (shape.wide) {  // they share all tiles, however many they are: no more than fit at once
    int multiprocessors = 0;
    HGRN2_CUDA_RETURN_IF_ERROR(DeviceAttribute(cudaDevAttrMultiProcessorCount, &multiprocessors));
    blocks = std::min(blocks, multiprocessors / 2 * 2);
  }
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream;
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeClusterDimension;
  attributes[0].val.clusterDim = {static_cast<unsigned>(shape.cluster()), 1, 1};
  attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[1].val.programmaticStreamSerializationAllowed = 1;
  config.attrs = attributes;
  config.numAttrs = q.overlap ? 2 : 1;
  return cudaLaunchKernelEx(&config, kernel, p);
}

}  // namespace hgrn2::cuda
