// Packets held back on real connections of this host.
#include "server/stream_connection.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <vector>

#include "server/sockets.h"

namespace hgrn2 {
namespace {

// A listening socket and one connection to it, as a server and its client have them.
class Connection {
 public:
  explicit Connection(int family = AF_INET, bool mapped = false) {
    sockaddr_storage address = {};
    socklen_t size = sizeof(address);
    address.ss_family = static_cast<sa_family_t>(family);
    auto* const any = reinterpret_cast<sockaddr*>(&address);
    if (family == AF_INET) {
      reinterpret_cast<sockaddr_in&>(address).sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      size = sizeof(sockaddr_in);
    } else {
      auto& v6 = reinterpret_cast<sockaddr_in6&>(address);
      v6.sin6_addr = in6addr_loopback;
      if (mapped) inet_pton(AF_INET6, "::ffff:127.0.0.1", &v6.sin6_addr);
      size = sizeof(sockaddr_in6);
    }
    listener_ = socket(family, SOCK_STREAM, 0);
    if (listener_ < 0 || bind(listener_, any, size) != 0 || listen(listener_, 4) != 0) return;
    getsockname(listener_, any, &size);
    client_ = socket(family, SOCK_STREAM, 0);
    if (connect(client_, any, size) != 0) return;
    server_ = accept(listener_, nullptr, nullptr);
  }
  ~Connection() {
    for (const int fd : {listener_, client_, server_}) {
      if (fd >= 0) close(fd);
    }
  }
  bool ok() const { return server_ >= 0; }
  int server() const { return server_; }
  int client() const { return client_; }
  int port() const { return LocalPort(server_); }
  void CloseServer() {
    shutdown(server_, SHUT_RDWR);
    close(server_);
    server_ = -1;
  }

  void Send(const std::string& text) const {
    ASSERT_EQ(send(server_, text.data(), text.size(), 0), static_cast<ssize_t>(text.size()));
  }
  // What the client has after at most that long; "" if nothing came.
  std::string Received(int milliseconds) const {
    pollfd poll_fd = {client_, POLLIN, 0};
    if (poll(&poll_fd, 1, milliseconds) <= 0) return {};
    char buffer[4096];
    const ssize_t n = recv(client_, buffer, sizeof(buffer), 0);
    return n > 0 ? std::string(buffer, static_cast<size_t>(n)) : "end";
  }

 private:
  int listener_ = -1, client_ = -1, server_ = -1;
};

constexpr int kAtOnce = 20, kSoon = 5000;

std::vector<std::shared_ptr<StreamConnection>> Streams(StreamConnections& connections,
                                                       const Connection& connection, int n) {
  std::vector<std::shared_ptr<StreamConnection>> streams;
  for (int i = 0; i < n; ++i) streams.push_back(connections.Join(PeerName(connection.server())));
  return streams;
}

// An "x" to each, as a worker writes a step's tokens.
void WriteToEach(const std::vector<std::shared_ptr<StreamConnection>>& streams,
                 const Connection& connection) {
  for (const auto& stream : streams) {
    PacketBatch::WillWrite(stream);
    connection.Send("x");
  }
}

TEST(SocketsTest, NamesPeersAsGrpcDoes) {
  const Connection v4;
  ASSERT_TRUE(v4.ok());
  EXPECT_EQ(PeerName(v4.server()), "ipv4:127.0.0.1:" + std::to_string(LocalPort(v4.client())));
  const Connection v6(AF_INET6);
  if (!v6.ok()) GTEST_SKIP() << "no IPv6 here";
  EXPECT_EQ(PeerName(v6.server()), "ipv6:%5B::1%5D:" + std::to_string(LocalPort(v6.client())));
  const Connection mapped(AF_INET6, true);
  ASSERT_TRUE(mapped.ok());
  EXPECT_EQ(PeerName(mapped.server()),
            "ipv4:127.0.0.1:" + std::to_string(LocalPort(mapped.client())));
}

TEST(SocketsTest, WhatIsNoConnectionHasNoNames) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  EXPECT_EQ(PeerName(ends[0]), "");
  EXPECT_EQ(LocalPort(ends[0]), 0);
  close(ends[0]);
  close(ends[1]);
  EXPECT_EQ(PeerName(-1), "");
}

TEST(PacketBatchTest, MessagesOfManyStreamsLeaveWithFlush) {
  const Connection connection;
  ASSERT_TRUE(connection.ok());
  StreamConnections connections(connection.port());
  const auto streams = Streams(connections, connection, kFewStreams);
  std::thread([&] {
    PacketBatch::Begin();
    WriteToEach(streams, connection);
    EXPECT_EQ(connection.Received(kAtOnce), "");
    PacketBatch::Flush();
    EXPECT_EQ(connection.Received(kSoon), std::string(kFewStreams, 'x'));
    connection.Send("y");
    EXPECT_EQ(connection.Received(kSoon), "y") << "held back after Flush";
  }).join();
}

TEST(PacketBatchTest, ManyMessagesDoNotWaitForFlush) {
  const Connection connection;
  ASSERT_TRUE(connection.ok());
  StreamConnections connections(connection.port());
  const auto streams = Streams(connections, connection, 64);
  std::thread([&] {
    PacketBatch::Begin();
    WriteToEach(streams, connection);
    EXPECT_NE(connection.Received(kSoon), "");
    PacketBatch::Flush();
  }).join();
}

TEST(PacketBatchTest, FewStreamsAndOtherThreadsWriteAtOnce) {
  const Connection connection;
  ASSERT_TRUE(connection.ok());
  StreamConnections connections(connection.port());
  auto streams = Streams(connections, connection, kFewStreams - 1);
  std::thread([&] {
    PacketBatch::Begin();
    PacketBatch::WillWrite(streams[0]);
    connection.Send("few");
    EXPECT_EQ(connection.Received(kSoon), "few");
    PacketBatch::Flush();
  }).join();
  streams.push_back(connections.Join(PeerName(connection.server())));
  PacketBatch::WillWrite(streams[0]);  // this thread promised no Flush
  connection.Send("at once");
  EXPECT_EQ(connection.Received(kSoon), "at once");
}

TEST(PacketBatchTest, AnUnknownPeerIsLeftAlone) {
  const Connection connection;
  ASSERT_TRUE(connection.ok());
  StreamConnections wrong_port(connection.port() + 1);
  const auto streams = Streams(wrong_port, connection, kFewStreams);
  std::thread([&] {
    PacketBatch::Begin();
    PacketBatch::WillWrite(streams[0]);
    connection.Send("x");
    EXPECT_EQ(connection.Received(kSoon), "x");
    PacketBatch::Flush();
  }).join();
}

TEST(PacketBatchTest, AConnectionEndsThoughItsStreamsRemain) {
  Connection connection;
  ASSERT_TRUE(connection.ok());
  StreamConnections connections(connection.port());
  const auto streams = Streams(connections, connection, kFewStreams);
  connection.CloseServer();
  EXPECT_EQ(connection.Received(kSoon), "end");
  std::thread([&] {  // harmless
    PacketBatch::Begin();
    PacketBatch::WillWrite(streams[0]);
    PacketBatch::Flush();
  })
      .join();
}

TEST(StreamConnectionsTest, StreamsOfAPeerShareAConnectionWhileItIsUsed) {
  StreamConnections connections(1);
  const auto first = connections.Join("ipv4:10.0.0.1:1");
  EXPECT_EQ(connections.Join("ipv4:10.0.0.1:1"), first);
  EXPECT_NE(connections.Join("ipv4:10.0.0.1:2"), first);
  for (int i = 0; i < 1000; ++i) connections.Join("ipv4:10.0.0.2:" + std::to_string(i));
  EXPECT_EQ(connections.Join("ipv4:10.0.0.1:1"), first);
}

}  // namespace
}  // namespace hgrn2
