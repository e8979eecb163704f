// safetensors headers from memory: no input may crash, and what is accepted keeps the promises that
// the loader relies on.
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/check.h"
#include "engine/loader/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const uint8_t> bytes(data, size);
  const auto file = hgrn2::Safetensors::Parse(bytes, "fuzz");
  if (!file.ok()) {
    HGRN2_CHECK(file.status().code() == absl::StatusCode::kInvalidArgument);
    return 0;
  }
  size_t total = 0;
  unsigned sum = 0;
  for (const hgrn2::SafetensorsEntry& entry : file->entries()) {
    HGRN2_CHECK(file->Find(entry.name) == &entry);
    HGRN2_CHECK(entry.shape.size() <= hgrn2::kMaxTensorRank);
    if (const auto dtype = entry.weight_dtype()) {
      size_t expected = hgrn2::SizeOf(*dtype);
      for (const int64_t n : entry.shape) expected *= static_cast<size_t>(n);
      HGRN2_CHECK(expected == entry.bytes.size());
    }
    for (const uint8_t byte : entry.bytes) sum += byte;  // ASan: every byte is ours
    total += entry.bytes.size();
  }
  HGRN2_CHECK(total <= size);
  volatile unsigned keep = sum;
  (void)keep;
  return 0;
}
