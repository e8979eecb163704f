// Fewer packets for a connection with many streams. gRPC sends every message with a system call and
// a packet of its own, which is half of what a token costs; a worker that has a token for each of a
// connection's streams holds the packets back (TCP_CORK) until it has written them.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <string>
#include <unordered_map>

#include "base/mutex.h"

namespace hgrn2 {

// A TCP connection, shared by its streams.
class StreamConnection {
 public:
  StreamConnection() = default;
  ~StreamConnection();
  StreamConnection(const StreamConnection&) = delete;
  StreamConnection& operator=(const StreamConnection&) = delete;

 private:
  friend class StreamConnections;
  friend class PacketBatch;
  void Hold(bool packets) const;

  std::atomic<bool> looked_up_{false};
  // A duplicate of gRPC's descriptor, so that the number is nobody else's when gRPC closes its own
  // (after a shutdown, so that the connection ends then); < 0: packets are left alone.
  std::atomic<int> fd_{-1};
};

// The connections of a port by their peers. Thread-safe.
class StreamConnections {
 public:
  explicit StreamConnections(int port) : port_(port) {}

  // For a new stream of grpc::ServerContext::peer(). The connection's socket is looked up when it
  // has kFewStreams.
  std::shared_ptr<StreamConnection> Join(const std::string& peer);

 private:
  const int port_;
  Mutex mu_;
  std::unordered_map<std::string, std::weak_ptr<StreamConnection>> connections_
      ABSL_GUARDED_BY(mu_);
  size_t purge_at_ ABSL_GUARDED_BY(mu_) = 64;
};

// What a thread writes between two calls of Flush. Only threads that call Flush soon after whatever
// they write may call Begin; elsewhere packets are never held back.
class PacketBatch {
 public:
  static void Begin();
  // The thread is about to write to a stream of the connection.
  static void WillWrite(const std::shared_ptr<StreamConnection>& connection);
  static void Flush();
};

// With fewer streams two more system calls cost more than they save.
inline constexpr int kFewStreams = 4;

}  // namespace hgrn2
