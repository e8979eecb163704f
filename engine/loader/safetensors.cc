#include "engine/loader/safetensors.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/status.h"
#include "engine/loader/json.h"
#include "engine/loader/printable.h"

namespace hgrn2 {
namespace {

using Json = nlohmann::json;

constexpr JsonLimits kHeaderLimits = {.max_bytes = kMaxSafetensorsHeaderBytes, .max_depth = 4};
constexpr const char kMetadataKey[] = "__metadata__";

// 0 for a dtype that this code does not know, which may have any size.
uint64_t ElementSize(std::string_view dtype) {
  static constexpr std::pair<std::string_view, uint64_t> kSizes[] = {
      {"F64", 8}, {"I64", 8}, {"U64", 8},  {"F32", 4},     {"I32", 4},
      {"U32", 4}, {"F16", 2}, {"BF16", 2}, {"I16", 2},     {"U16", 2},
      {"I8", 1},  {"U8", 1},  {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1}};
  for (const auto& [name, size] : kSizes) {
    if (name == dtype) return size;
  }
  return 0;
}

// A non-negative JSON integer.
std::optional<uint64_t> AsUnsigned(const Json& value) {
  if (!value.is_number_unsigned()) return std::nullopt;
  return value.get<uint64_t>();
}

struct Extent {
  uint64_t begin;
  uint64_t end;
};

// Reads one tensor's header entry; `Fail` makes the error.
class EntryReader {
 public:
  EntryReader(std::string_view file, const std::string& name, const Json& json)
      : file_(file), name_(name), json_(json) {}

  absl::Status Read(uint64_t data_size, SafetensorsEntry* entry, Extent* extent) const {
    entry->name = name_;
    if (!json_.is_object()) return Fail("its header entry must be an object");
    RETURN_IF_ERROR(ReadDType(entry));
    RETURN_IF_ERROR(ReadShape(entry));
    RETURN_IF_ERROR(ReadOffsets(data_size, extent));
    return CheckSize(*entry, *extent);
  }

 private:
  absl::Status Fail(std::string_view what) const {
    return MakeStatus(absl::StatusCode::kInvalidArgument, "{}: tensor \"{}\": {}", file_,
                      Printable(name_), what);
  }

  absl::Status ReadDType(SafetensorsEntry* entry) const {
    const auto it = json_.find("dtype");
    if (it == json_.end() || !it->is_string()) return Fail("dtype must be a string");
    entry->dtype = it->get<std::string>();
    return absl::OkStatus();
  }

  absl::Status ReadShape(SafetensorsEntry* entry) const {
    const auto it = json_.find("shape");
    if (it == json_.end() || !it->is_array() || it->size() > kMaxTensorRank) {
      return Fail(fmt::format("shape must be a list of at most {} sizes", kMaxTensorRank));
    }
    for (const Json& item : *it) {
      const std::optional<uint64_t> size = AsUnsigned(item);
      if (!size || *size > static_cast<uint64_t>(INT64_MAX)) {
        return Fail("shape must hold integers in [0, 2^63)");
      }
      entry->shape.push_back(static_cast<int64_t>(*size));
    }
    return absl::OkStatus();
  }

  absl::Status ReadOffsets(uint64_t data_size, Extent* extent) const {
    const auto it = json_.find("data_offsets");
    if (it == json_.end() || !it->is_array() || it->size() != 2 || !AsUnsigned((*it)[0]) ||
        !AsUnsigned((*it)[1])) {
      return Fail("data_offsets must be two non-negative integers");
    }
    *extent = {*AsUnsigned((*it)[0]), *AsUnsigned((*it)[1])};
    if (extent->begin > extent->end) {
      return Fail(fmt::format("data_offsets [{}, {}] must not fall", extent->begin, extent->end));
    }
    if (extent->end > data_size) {
      return Fail(fmt::format(
          "data_offsets end at byte {} but the file holds {} bytes of tensors (truncated?)",
          extent->end, data_size));
    }
    return absl::OkStatus();
  }

  absl::Status CheckSize(const SafetensorsEntry& entry, const Extent& extent) const {
    uint64_t bytes = ElementSize(entry.dtype);
    if (bytes == 0) return absl::OkStatus();  // refused if somebody asks for this tensor
    bool overflow = false;
    for (const int64_t size : entry.shape) {
      overflow |= __builtin_mul_overflow(bytes, static_cast<uint64_t>(size), &bytes);
    }
    if (overflow || bytes != extent.end - extent.begin) {
      return Fail(fmt::format("shape [{}] of {} does not make the {} bytes of its data_offsets",
                              fmt::join(entry.shape, ", "), Printable(entry.dtype),
                              extent.end - extent.begin));
    }
    return absl::OkStatus();
  }

  const std::string_view file_;
  const std::string& name_;
  const Json& json_;
};

absl::Status CheckMetadata(const Json& metadata, std::string_view file) {
  const bool strings =
      metadata.is_object() && std::all_of(metadata.begin(), metadata.end(),
                                          [](const Json& value) { return value.is_string(); });
  if (strings) return absl::OkStatus();
  return MakeStatus(absl::StatusCode::kInvalidArgument, "{}: {} must map strings to strings", file,
                    kMetadataKey);
}

// The header's JSON text.
absl::StatusOr<std::string_view> HeaderText(std::span<const uint8_t> bytes, std::string_view file) {
  uint64_t length = 0;
  if (bytes.size() < sizeof(length)) {
    return MakeStatus(absl::StatusCode::kInvalidArgument,
                      "{}: {} bytes are too few for a safetensors file (8 bytes of header length)",
                      file, bytes.size());
  }
  for (int i = 7; i >= 0; --i) length = length << 8 | bytes[i];
  if (length > kMaxSafetensorsHeaderBytes) {
    return MakeStatus(
        absl::StatusCode::kInvalidArgument,
        "{}: header length {} is over the limit of {} bytes (not a safetensors file?)", file,
        length, kMaxSafetensorsHeaderBytes);
  }
  if (length > bytes.size() - sizeof(length)) {
    return MakeStatus(absl::StatusCode::kInvalidArgument,
                      "{}: header length {} is beyond the end of the file of {} bytes (truncated?)",
                      file, length, bytes.size());
  }
  return std::string_view(reinterpret_cast<const char*>(bytes.data()) + sizeof(length), length);
}

// `tensors` is in the order of the extents' beginnings.
absl::Status CheckCoverage(const std::vector<std::pair<Extent, SafetensorsEntry>>& tensors,
                           uint64_t data_size, std::string_view file) {
  uint64_t end = 0;
  for (const auto& [extent, entry] : tensors) {
    if (extent.begin != end) {
      return MakeStatus(
          absl::StatusCode::kInvalidArgument,
          "{}: tensor \"{}\": data_offsets begin at byte {}, {} the end of the tensor "
          "before it at {}",
          file, Printable(entry.name), extent.begin,
          extent.begin < end ? "overlapping" : "leaving a hole after", end);
    }
    end = extent.end;
  }
  if (end != data_size) {
    return MakeStatus(absl::StatusCode::kInvalidArgument,
                      "{}: the file holds {} bytes of tensors but its header describes {}", file,
                      data_size, end);
  }
  return absl::OkStatus();
}

}  // namespace

std::optional<DType> SafetensorsEntry::weight_dtype() const {
  if (dtype == "F32") return DType::kF32;
  if (dtype == "BF16") return DType::kBF16;
  if (dtype == "F16") return DType::kF16;
  return std::nullopt;
}

absl::StatusOr<Safetensors> Safetensors::Parse(std::span<const uint8_t> bytes,
                                               std::string_view file) {
  ASSIGN_OR_RETURN(const std::string_view text, HeaderText(bytes, file));
  ASSIGN_OR_RETURN(const Json header, ParseJsonObject(text, file, kHeaderLimits));
  const std::span<const uint8_t> data = bytes.subspan(sizeof(uint64_t) + text.size());

  std::vector<std::pair<Extent, SafetensorsEntry>> tensors;
  for (const auto& [name, json] : header.items()) {
    if (name == kMetadataKey) {
      RETURN_IF_ERROR(CheckMetadata(json, file));
      continue;
    }
    auto& [extent, entry] = tensors.emplace_back();
    RETURN_IF_ERROR(EntryReader(file, name, json).Read(data.size(), &entry, &extent));
    entry.bytes = data.subspan(extent.begin, extent.end - extent.begin);
  }
  std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first.begin, a.first.end) < std::pair(b.first.begin, b.first.end);
  });
  RETURN_IF_ERROR(CheckCoverage(tensors, data.size(), file));

  Safetensors result;
  result.file_ = std::string(file);
  for (auto& [extent, entry] : tensors) {
    result.index_.emplace(entry.name, result.entries_.size());
    result.entries_.push_back(std::move(entry));
  }
  return result;
}

const SafetensorsEntry* Safetensors::Find(const std::string& name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &entries_[it->second];
}

absl::StatusOr<SafetensorsFile> OpenSafetensors(const std::string& path) {
  ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> mapping, MappedFile::Open(path));
  ASSIGN_OR_RETURN(Safetensors tensors, Safetensors::Parse(mapping->bytes(), path));
  return SafetensorsFile{std::move(mapping), std::move(tensors)};
}

}  // namespace hgrn2
