#include "server/stream_connection.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <vector>

#include "server/sockets.h"

namespace hgrn2 {
namespace {

// A duplicate of the descriptor of this process's connection; -1 if there is none.
int DuplicateConnection(const std::string& peer, int port) {
  const auto is_it = [&](int fd) { return LocalPort(fd) == port && PeerName(fd) == peer; };
  int found = -1;
  ForEachOpenFile([&](int fd) {
    if (is_it(fd)) found = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    return found < 0;
  });
  // gRPC may have closed it, and somebody opened another, before it was duplicated.
  if (found >= 0 && !is_it(found)) {
    close(found);
    return -1;
  }
  return found;
}

// What a thread holds back.
struct Held {
  std::shared_ptr<StreamConnection> connection;
  int messages = 0;
};
struct Batch {
  bool begun = false;
  std::vector<Held> held;
};
thread_local Batch batch;

// Then they go: the first of them has waited for the others long enough.
constexpr int kMostMessages = 16;

}  // namespace

StreamConnection::~StreamConnection() {
  if (fd_ >= 0) close(fd_);
}

void StreamConnection::Hold(bool packets) const {
  const int on = packets ? 1 : 0;
  setsockopt(fd_, IPPROTO_TCP, TCP_CORK, &on, sizeof(on));
}

std::shared_ptr<StreamConnection> StreamConnections::Join(const std::string& peer) {
  std::shared_ptr<StreamConnection> connection;
  {
    MutexLock lock(&mu_);
    if (connections_.size() >= purge_at_) {
      std::erase_if(connections_, [](const auto& c) { return c.second.expired(); });
      purge_at_ = 64 + 2 * connections_.size();
    }
    std::weak_ptr<StreamConnection>& known = connections_[peer];
    connection = known.lock();
    if (connection == nullptr) known = connection = std::make_shared<StreamConnection>();
  }
  if (connection.use_count() >= kFewStreams && !connection->looked_up_.exchange(true)) {
    connection->fd_ = DuplicateConnection(peer, port_);
  }
  return connection;
}

void PacketBatch::Begin() { batch.begun = true; }

void PacketBatch::WillWrite(const std::shared_ptr<StreamConnection>& connection) {
  if (!batch.begun || connection->fd_ < 0 || connection.use_count() < kFewStreams) return;
  for (Held& held : batch.held) {
    if (held.connection != connection) continue;
    if (++held.messages > kMostMessages) {
      connection->Hold(false);
      connection->Hold(true);
      held.messages = 1;
    }
    return;
  }
  connection->Hold(true);
  batch.held.push_back({connection, 1});
}

void PacketBatch::Flush() {
  for (const Held& held : batch.held) held.connection->Hold(false);
  batch.held.clear();
}

}  // namespace hgrn2
