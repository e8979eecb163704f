#include "server/hang_up.h"

#include <dirent.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdlib>
#include <memory>
#include <vector>

namespace hgrn2 {
namespace {

// The local port of a TCP socket; 0 for anything else.
int LocalPort(int fd) {
  int type = 0;
  socklen_t type_size = sizeof(type);
  if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_size) != 0 || type != SOCK_STREAM) return 0;
  sockaddr_storage address = {};
  socklen_t size = sizeof(address);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return 0;
  if (address.ss_family == AF_INET) {
    return ntohs(reinterpret_cast<const sockaddr_in&>(address).sin_port);
  }
  if (address.ss_family == AF_INET6) {
    return ntohs(reinterpret_cast<const sockaddr_in6&>(address).sin6_port);
  }
  return 0;
}

std::vector<int> OpenFiles() {
  std::vector<int> fds;
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir("/proc/self/fd"), &closedir);
  if (directory == nullptr) return fds;
  while (const dirent* entry = readdir(directory.get())) {
    if (entry->d_name[0] != '.') fds.push_back(std::atoi(entry->d_name));
  }
  return fds;
}

}  // namespace

void HangUp(int port) {
  // gRPC does not hand out its sockets, so they are looked up. Twice: a connection may be accepted
  // while the listening sockets are being shut.
  for (int round = 0; round < 2; ++round) {
    for (const int fd : OpenFiles()) {
      if (LocalPort(fd) == port) shutdown(fd, SHUT_RDWR);
    }
  }
}

}  // namespace hgrn2
