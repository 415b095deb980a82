// Purpose: files that somebody else changes while the engine runs.
// Thread: any.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <string>

namespace webhooks {

// 0: there is no such file.
inline std::int64_t modification_ns(const std::string& path) {
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) {
    return 0;
  }
  return static_cast<std::int64_t>(info.st_mtim.tv_sec) * 1'000'000'000 +
         static_cast<std::int64_t>(info.st_mtim.tv_nsec);
}

}  // namespace webhooks
