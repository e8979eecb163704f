// Instances of the kernel with tokens in columns.
#include "kernels/cuda/gemm/column_gemm_kernel.cuh"

namespace hgrn2::cuda::gemm {
namespace {

template <int kColumns>
Kernel KernelOf(GemmEpilogue epilogue) {
  if (epilogue == GemmEpilogue::kSwiGlu) return ColumnKernelOf<kColumns, GemmEpilogue::kSwiGlu>();
  return ColumnKernelOf<kColumns, GemmEpilogue::kResidual>();
}

}  // namespace

Kernel ColumnKernelFor(int columns, GemmEpilogue epilogue) {
  if (!IsBuiltColumns(columns, epilogue)) return nullptr;
  return columns == 96 ? KernelOf<96>(epilogue) : KernelOf<160>(epilogue);
}

}  // namespace hgrn2::cuda::gemm
