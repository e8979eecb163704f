// The fingerprint of a model: which states belong to which weights. Not cryptographic: it tells
// models apart, it does not authenticate them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "engine/loader/model_config.h"
#include "engine/loader/weight_names.h"

namespace hgrn2 {

// 64 bits over the bytes, reading every one. Several GB/s and thread; arrays above 1 MiB are read
// by all CPUs. The value is part of saved sessions: changing the function orphans them.
uint64_t HashBytes(std::span<const uint8_t> bytes, uint64_t seed);

// 16 hex digits over what the forward pass depends on: the shape keys of the config and the name,
// dtype, shape and bytes of every tensor. How the tensors are spread over files does not enter.
// REQUIRES: every slot's view is set.
std::string HashModel(const ModelConfig& config, std::span<const TensorSlot> tensors);

}  // namespace hgrn2
