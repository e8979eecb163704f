// A blocking HTTP client over plain sockets, which can also send what no decent client would.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cctype>
#include <cstdlib>
#include <map>
#include <string>

namespace hgrn2::testing {

struct HttpReply {
  int status = 0;                              // 0: the connection ended before an answer
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
};

class RawClient {
 public:
  explicit RawClient(int port) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    // A hanging server fails the test instead of hanging it. Long: after a client has not read for
    // a while, TCP itself tries again only every so often.
    timeval timeout{60, 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    connected_ = connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
  }
  ~RawClient() { close(fd_); }
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  bool connected() const { return connected_; }
  void Send(const std::string& text) {
    for (size_t sent = 0; sent < text.size();) {
      const ssize_t n = send(fd_, text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
      if (n <= 0) return;
      sent += static_cast<size_t>(n);
    }
  }
  // One answer, whole: by Content-Length, in chunks, or up to the end of the connection.
  HttpReply Read(bool has_body = true) {
    HttpReply reply = ReadHead();
    if (reply.status == 0 || !has_body || reply.status == 204) return reply;
    if (reply.headers.contains("transfer-encoding")) {
      while (true) {
        const std::string chunk = ReadChunk();
        if (chunk.empty()) break;
        reply.body += chunk;
      }
      if (!whole_) return {};
      return reply;
    }
    if (!reply.headers.contains("content-length")) {
      reply.body = ReadToEnd();
      return reply;
    }
    const size_t length = std::strtoull(reply.headers["content-length"].c_str(), nullptr, 10);
    while (buffer_.size() < length) {
      if (!Fill()) return {};
    }
    reply.body = buffer_.substr(0, length);
    buffer_.erase(0, length);
    return reply;
  }
  HttpReply ReadHead() {
    size_t head;
    while ((head = buffer_.find("\r\n\r\n")) == std::string::npos) {
      if (!Fill()) return {};
    }
    HttpReply reply;
    reply.status = std::atoi(buffer_.substr(9, 3).c_str());
    for (size_t at = buffer_.find("\r\n") + 2; at < head;) {
      const size_t end = buffer_.find("\r\n", at);
      const size_t colon = buffer_.find(": ", at);
      std::string name = buffer_.substr(at, colon - at);
      for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
      reply.headers[name] = buffer_.substr(colon + 2, end - colon - 2);
      at = end + 2;
    }
    buffer_.erase(0, head + 4);
    return reply;
  }
  // The next piece of a chunked body; "" at its end, and if it is cut off (then not whole()).
  std::string ReadChunk() {
    whole_ = false;
    size_t line;
    while ((line = buffer_.find("\r\n")) == std::string::npos) {
      if (!Fill()) return {};
    }
    const size_t size = std::strtoull(buffer_.c_str(), nullptr, 16);
    while (buffer_.size() < line + 2 + size + 2) {
      if (!Fill()) return {};
    }
    std::string chunk = buffer_.substr(line + 2, size);
    buffer_.erase(0, line + 2 + size + 2);
    whole_ = true;
    return chunk;
  }
  bool whole() const { return whole_; }
  // Ends what this side sends; answers can still be read.
  void EndSending() { shutdown(fd_, SHUT_WR); }
  // Small, before anything is received: a peer that takes little at a time.
  void SetReceiveBuffer(int bytes) {
    setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
  }
  std::string ReadToEnd() {
    while (Fill()) {
    }
    return buffer_;
  }
  // Whether the server has closed the connection (waits for it) with nothing more to read.
  bool AtEnd() { return !Fill() && !timed_out_ && buffer_.empty(); }

 private:
  bool Fill() {
    char chunk[4096];
    const ssize_t n = recv(fd_, chunk, sizeof(chunk), 0);
    timed_out_ = n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
    if (n <= 0) return false;
    buffer_.append(chunk, static_cast<size_t>(n));
    return true;
  }

  const int fd_;
  bool connected_ = false;
  bool timed_out_ = false;
  bool whole_ = false;
  std::string buffer_;
};

// On a connection of its own.
inline HttpReply HttpPost(int port, const std::string& path, const std::string& body,
                          const std::string& headers = "") {
  RawClient client(port);
  client.Send("POST " + path + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" +
              "Content-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) +
              "\r\n" + headers + "\r\n" + body);
  return client.Read();
}

inline HttpReply HttpGet(int port, const std::string& path) {
  RawClient client(port);
  client.Send("GET " + path + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
  return client.Read();
}

}  // namespace hgrn2::testing
