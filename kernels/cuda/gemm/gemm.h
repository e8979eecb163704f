// Products with the weights through cuBLASLt: out[T, rows] = x[T, cols] W[rows, cols]^T.
//
// The algorithm of a product is chosen once per (weight shape, token bucket, types) by cuBLASLt's
// heuristic and kept, so a row's result depends on its bucket, not on what else is in the batch.
#pragma once

#include <cublasLt.h>

#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/cuda/common.h"
#include "kernels/cuda/gemm/token_bucket.h"
#include "kernels/cuda/model_view.h"

namespace hgrn2::cuda {

struct GemmParams {
  MatrixView weight;
  const void* x = nullptr;         // [T, cols], of weight.type (kF8E4M3: with x_scale)
  const float* x_scale = nullptr;  // [T], kF8E4M3 only: x = data * x_scale[t]
  void* out = nullptr;             // [T, rows]
  DType out_type = DType::kBF16;   // kF32 or kBF16
  int64_t tokens = 0;              // T; REQUIRES: == GemmTokenBucket(T)
  // kF8E4M3: out is the product of the e4m3 numbers, which whoever reads it multiplies by
  // x_scale[t] and weight.scale[r]. cuBLASLt then may split the columns, which it does not with
  // scales.
  bool unscaled = false;
};

// Not thread-safe. Workspace is the caller's.
class Gemm {
 public:
  Gemm() = default;
  ~Gemm();
  Gemm(const Gemm&) = delete;
  Gemm& operator=(const Gemm&) = delete;

  static constexpr size_t kWorkspaceBytes = size_t{32} << 20;

  // Empty on success, else what failed.
  std::string Init(void* workspace);
  // Empty on success. The first call for a shape asks the heuristic (host work, no device sync).
  std::string Run(const GemmParams& params, cudaStream_t stream);
  // Times the heuristic's best `candidates` algorithms, going round `weights` (matrices of one
  // shape, together larger than the L2 cache), and keeps the fastest for the shape. Synchronises.
  // Returns the microseconds of the heuristic's first choice and of the fastest.
  std::string Tune(GemmParams params, const std::vector<MatrixView>& weights, cudaStream_t stream,
                   int candidates, double* first_us, double* best_us);

 private:
  // rows, cols, tokens, weight type, out type, unscaled
  using Key = std::tuple<int64_t, int64_t, int64_t, DType, DType, bool>;
  struct Plan {
    cublasLtMatmulDesc_t desc = nullptr;
    cublasLtMatrixLayout_t a = nullptr, b = nullptr, d = nullptr;
    cublasLtMatmulAlgo_t algo = {};
  };
  static Key KeyOf(const GemmParams& params);
  std::string MakePlan(const GemmParams& params, Plan* plan);
  std::string GetPlan(const GemmParams& params, Plan** plan);
  cublasStatus_t Launch(const GemmParams& params, const Plan& plan,
                        const cublasLtMatmulAlgo_t& algo, cudaStream_t stream);

  cublasLtHandle_t handle_ = nullptr;
  void* workspace_ = nullptr;
  std::map<Key, Plan> plans_;
};

}  // namespace hgrn2::cuda
