// Purpose: simulates a DNS server that never answers. When this library is
// preloaded, a lookup of *.hangs.example takes a minute; others are unchanged.
#include <dlfcn.h>
#include <netdb.h>
#include <unistd.h>

#include <string_view>

extern "C" int getaddrinfo(const char* node, const char* service,
                           const struct addrinfo* hints,
                           struct addrinfo** result) noexcept {
  constexpr unsigned kSeconds = 60;
  if (node != nullptr && std::string_view(node).ends_with(".hangs.example")) {
    sleep(kSeconds);
    return EAI_AGAIN;
  }
  using Function = int (*)(const char*, const char*, const struct addrinfo*,
                           struct addrinfo**);
  static const auto original =
      reinterpret_cast<Function>(dlsym(RTLD_NEXT, "getaddrinfo"));
  return original(node, service, hints, result);
}
