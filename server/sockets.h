// This process's own sockets: gRPC does not hand out its, so they are looked up.
#pragma once

#include <functional>
#include <string>

namespace hgrn2 {

// Every open file descriptor, in any order, until `visit` returns false.
void ForEachOpenFile(const std::function<bool(int fd)>& visit);
// The local port of a TCP socket; 0 for anything else.
int LocalPort(int fd);
// The other end of a TCP connection as grpc::ServerContext::peer names it, "ipv4:127.0.0.1:4711" or
// "ipv6:%5B::1%5D:4711"; "" for anything else.
std::string PeerName(int fd);

}  // namespace hgrn2
