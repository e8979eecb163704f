// What the device allows a persistent kernel: read bandwidth and the cost of a grid barrier.
#pragma once

namespace hgrn2::cuda::test {

int MeasureCeilings();

}  // namespace hgrn2::cuda::test
