// One HTTP POST to a plain endpoint, within a time that nothing extends.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "base/clock.h"

namespace hgrn2 {

struct HttpEndpoint {
  std::string host;  // an IPv6 address without its brackets
  std::string port;
  std::string path;       // begins with '/'
  std::string authority;  // "HOST[:PORT]" as given
};

// Of "http://HOST[:PORT][/PATH]"; nothing if `url` is not that.
std::optional<HttpEndpoint> ParseHttpEndpoint(std::string_view url);

class JsonPost {
 public:
  JsonPost(const HttpEndpoint& endpoint, std::string json);
  // Waits for the system's resolver if that still looks for the host, which cannot be stopped.
  ~JsonPost();
  JsonPost(const JsonPost&) = delete;
  JsonPost& operator=(const JsonPost&) = delete;

  // The answer's status code. UNAVAILABLE: none came within `timeout`, or before Stop. Once.
  absl::StatusOr<int> Run(Duration timeout);
  // Ends Run at once, now or when it comes. Any thread.
  void Stop();

 private:
  struct State;
  const std::unique_ptr<State> state_;
};

}  // namespace hgrn2
