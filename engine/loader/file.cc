#include "engine/loader/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/status.h"

namespace hgrn2 {
namespace {

absl::Status ErrnoStatus(const std::string& path, const char* action, int error) {
  const auto code = error == ENOENT || error == ENOTDIR ? absl::StatusCode::kNotFound
                    : error == EACCES                   ? absl::StatusCode::kPermissionDenied
                                                        : absl::StatusCode::kUnavailable;
  return MakeStatus(code, "{}: cannot {}: {}", path, action, std::strerror(error));
}

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  FileDescriptor& operator=(FileDescriptor&&) = delete;
  ~FileDescriptor() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

struct OpenedFile {
  FileDescriptor fd;
  size_t size;
};

absl::StatusOr<OpenedFile> OpenRegular(const std::string& path) {
  // O_NONBLOCK: a FIFO under that name must not hang the start-up.
  FileDescriptor fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (fd.get() < 0) return ErrnoStatus(path, "open", errno);
  struct stat info;
  if (fstat(fd.get(), &info) != 0) return ErrnoStatus(path, "stat", errno);
  if (!S_ISREG(info.st_mode)) {
    return MakeStatus(absl::StatusCode::kInvalidArgument, "{}: is not a regular file", path);
  }
  return OpenedFile{std::move(fd), static_cast<size_t>(info.st_size)};
}

}  // namespace

bool FileExists(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0;
}

absl::StatusOr<std::string> ReadWholeFile(const std::string& path, size_t max_bytes) {
  ASSIGN_OR_RETURN(const OpenedFile file, OpenRegular(path));
  if (file.size > max_bytes) {
    return MakeStatus(absl::StatusCode::kInvalidArgument, "{}: {} bytes, the limit is {}", path,
                      file.size, max_bytes);
  }
  std::string text(file.size, '\0');
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = read(file.fd.get(), text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus(path, "read", errno);
    if (n == 0) break;  // it shrank meanwhile
    done += static_cast<size_t>(n);
  }
  text.resize(done);
  return text;
}

absl::StatusOr<std::unique_ptr<MappedFile>> MappedFile::Open(const std::string& path) {
  ASSIGN_OR_RETURN(const OpenedFile file, OpenRegular(path));
  std::span<const uint8_t> bytes;
  if (file.size > 0) {
    void* address = mmap(nullptr, file.size, PROT_READ, MAP_PRIVATE, file.fd.get(), 0);
    if (address == MAP_FAILED) return ErrnoStatus(path, "map", errno);
    bytes = {static_cast<const uint8_t*>(address), file.size};
  }
  return std::unique_ptr<MappedFile>(new MappedFile(bytes));
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) munmap(const_cast<uint8_t*>(bytes_.data()), bytes_.size());
}

}  // namespace hgrn2
