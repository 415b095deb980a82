# Toolchain: Debian's compiler for arm64, the libraries of tools/arm64-sysroot in
# WEBHOOKS_SYSROOT, and an emulator that runs the tests.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
# For the compiler checks, which run this file anew.
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES WEBHOOKS_SYSROOT)

set(CMAKE_FIND_ROOT_PATH "${WEBHOOKS_SYSROOT}")
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64-static -L "${WEBHOOKS_SYSROOT}")

# Not --sysroot: it would hide the compiler's own C library.
set(webhooks_headers "${WEBHOOKS_SYSROOT}/usr/include")
set(CMAKE_CXX_FLAGS_INIT
  "-idirafter ${webhooks_headers}/aarch64-linux-gnu -idirafter ${webhooks_headers} -DWEBHOOKS_EMULATED")
set(CMAKE_EXE_LINKER_FLAGS_INIT
  "-Wl,-rpath-link,${WEBHOOKS_SYSROOT}/usr/lib/aarch64-linux-gnu:${WEBHOOKS_SYSROOT}/lib/aarch64-linux-gnu")
