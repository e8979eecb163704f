// Breaks the CUDA context of a process it is preloaded into (LD_PRELOAD), as a faulty kernel would:
// when the file named by HGRN2_FAULT_FILE appears, a kernel that traps runs in the primary context
// of device 0, and every later CUDA call of the process fails. Driver API only, found at run time,
// so that nothing of the product is changed or linked.
#include <dlfcn.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

namespace {

constexpr char kTrap[] =
    ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry trap_kernel() { trap; }\n";

template <typename F>
F Find(void* library, const char* name) {
  return reinterpret_cast<F>(dlsym(library, name));
}

bool Break() {
  void* const cuda = dlopen("libcuda.so.1", RTLD_NOW);
  if (cuda == nullptr) return false;
  const auto retain = Find<int (*)(void**, int)>(cuda, "cuDevicePrimaryCtxRetain");
  const auto set_current = Find<int (*)(void*)>(cuda, "cuCtxSetCurrent");
  const auto load = Find<int (*)(void**, const void*)>(cuda, "cuModuleLoadData");
  const auto get = Find<int (*)(void**, void*, const char*)>(cuda, "cuModuleGetFunction");
  const auto launch =
      Find<int (*)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                   void*, void**, void**)>(cuda, "cuLaunchKernel");
  const auto synchronize = Find<int (*)()>(cuda, "cuCtxSynchronize");
  void *context = nullptr, *module = nullptr, *function = nullptr;
  return retain(&context, 0) == 0 && set_current(context) == 0 && load(&module, kTrap) == 0 &&
         get(&function, module, "trap_kernel") == 0 &&
         launch(function, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr) == 0 &&
         synchronize() != 0;
}

// In a thread of its own, from the moment the library is loaded.
[[maybe_unused]] const bool started = [] {
  const char* const file = std::getenv("HGRN2_FAULT_FILE");
  if (file == nullptr) return false;
  std::thread([path = std::string(file)] {
    while (access(path.c_str(), F_OK) != 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    std::fprintf(stderr, Break() ? "fault injected\n" : "no fault could be injected\n");
  }).detach();
  return true;
}();

}  // namespace
