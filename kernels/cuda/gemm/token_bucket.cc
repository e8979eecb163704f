#include "kernels/cuda/gemm/token_bucket.h"

namespace hgrn2::cuda {

int64_t GemmTokenBucket(int64_t tokens) {
  if (tokens <= 8) return 8;
  const int64_t step = tokens <= 64 ? 16 : tokens <= 512 ? 64 : tokens <= 1024 ? 128 : 256;
  return (tokens + step - 1) / step * step;
}

}  // namespace hgrn2::cuda
