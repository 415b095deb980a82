# Finds what the build needs. One error names everything that is missing, with the packages
# that contain it. Stopping at the first would take one configure run per package.
set(WEBHOOKS_MISSING "")

# webhooks_need(<found> <what> <Debian package> <Alpine package>)
function(webhooks_need found what debian alpine)
  if(found)
    return()
  endif()
  string(APPEND WEBHOOKS_MISSING
    "  ${what}\n"
    "    Debian, Ubuntu:  apt-get install ${debian}\n"
    "    Alpine:          apk add ${alpine}\n")
  set(WEBHOOKS_MISSING "${WEBHOOKS_MISSING}" PARENT_SCOPE)
endfunction()

function(webhooks_refuse_missing)
  if(WEBHOOKS_MISSING)
    # CMake prints indented lines as they are and refills the others.
    message(FATAL_ERROR "The build needs what this machine does not have:\n${WEBHOOKS_MISSING}")
  endif()
endfunction()

if(NOT CMAKE_SYSTEM_NAME STREQUAL "Linux")
  message(FATAL_ERROR
    "Linux only: the event loop is built on epoll and eventfd. "
    "This system is ${CMAKE_SYSTEM_NAME}.")
endif()

# Checking the flag is not enough: compilers accepted -std=c++20 years before their
# libraries had these headers.
include(CheckCXXSourceCompiles)
set(CMAKE_REQUIRED_FLAGS "-std=c++20")
check_cxx_source_compiles("
  #include <charconv>
  #include <concepts>
  #include <span>
  #include <string_view>
  template <std::integral T> T twice(T x) { return x + x; }
  int main() {
    char text[32];
    std::span<char> room(text);
    auto r = std::to_chars(room.data(), room.data() + room.size(), 1.5);
    return twice(static_cast<int>(r.ptr - text)) > 0 ? 0 : 1;
  }" WEBHOOKS_CXX20_WORKS)
unset(CMAKE_REQUIRED_FLAGS)
webhooks_need("${WEBHOOKS_CXX20_WORKS}"
  "a C++20 compiler (GCC 11 or Clang 14, or newer); ${CMAKE_CXX_COMPILER} is not one" g++ g++)

find_package(Threads REQUIRED)
find_package(CURL 7.85 QUIET)
webhooks_need("${CURL_FOUND}" "libcurl 7.85 or newer, with headers"
  libcurl4-openssl-dev curl-dev)
find_package(OpenSSL 3.0 QUIET)
webhooks_need("${OPENSSL_FOUND}" "OpenSSL 3.0 or newer, with headers"
  libssl-dev openssl-dev)
# webhooks_find(<target> <header> <library> <what> <Debian package> <Alpine package>): for what
# has no CMake package, or not everywhere.
function(webhooks_find target header library what debian alpine)
  string(TOUPPER "${library}" name)
  find_path(${name}_INCLUDE_DIR ${header})
  find_library(${name}_LIBRARY ${library})
  mark_as_advanced(${name}_INCLUDE_DIR ${name}_LIBRARY)
  if(${name}_INCLUDE_DIR AND ${name}_LIBRARY)
    set(found TRUE)
    add_library(${target} UNKNOWN IMPORTED GLOBAL)
    set_target_properties(${target} PROPERTIES
      IMPORTED_LOCATION "${${name}_LIBRARY}"
      INTERFACE_INCLUDE_DIRECTORIES "${${name}_INCLUDE_DIR}")
  endif()
  webhooks_need("${found}" "${what}, with headers" ${debian} ${alpine})
  set(WEBHOOKS_MISSING "${WEBHOOKS_MISSING}" PARENT_SCOPE)
endfunction()

# libcurl links libidn2 anyway.
webhooks_find(IDN2::idn2 idn2.h idn2 "libidn2" libidn2-dev libidn2-dev)
webhooks_find(CARES::cares ares.h cares "c-ares 1.18 or newer" libc-ares-dev c-ares-dev)
# Searched by its files, too. The CMake package in Alpine's simdjson-dev names a
# static library, which is in another package and cannot be linked into a shared one.
find_path(SIMDJSON_INCLUDE_DIR simdjson.h
  HINTS "${simdjson_ROOT}/include" "$ENV{simdjson_ROOT}/include")
find_library(SIMDJSON_LIBRARY NAMES libsimdjson.so
  HINTS "${simdjson_ROOT}/lib" "$ENV{simdjson_ROOT}/lib")
mark_as_advanced(SIMDJSON_INCLUDE_DIR SIMDJSON_LIBRARY)
if(SIMDJSON_INCLUDE_DIR AND SIMDJSON_LIBRARY)
  set(simdjson_FOUND TRUE)
  add_library(simdjson::simdjson UNKNOWN IMPORTED)
  set_target_properties(simdjson::simdjson PROPERTIES
    IMPORTED_LOCATION "${SIMDJSON_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${SIMDJSON_INCLUDE_DIR}")
else()
  # A static library, in an image built for it.
  find_package(simdjson QUIET)
endif()
webhooks_need("${simdjson_FOUND}" "simdjson, with headers"
  libsimdjson-dev simdjson-dev)

if(WEBHOOKS_BUILD_TESTS)
  find_package(Catch2 QUIET)
  webhooks_need("${Catch2_FOUND}" "Catch2 2.13 or 3, for the tests" catch2 catch2)
endif()

if(WEBHOOKS_BUILD_BENCH)
  find_package(benchmark QUIET)
  webhooks_need("${benchmark_FOUND}" "Google Benchmark, for the benchmarks"
    libbenchmark-dev benchmark-dev)
endif()

# Only the embedded store needs SQLite. Without SQLite the build leaves that store out.
if(WEBHOOKS_BUILD_NIF AND WEBHOOKS_BUILD_SQLITE)
  find_package(SQLite3 3.38 QUIET)
endif()

# Mix passes the folder of erl_nif.h. Without Mix, Erlang prints it.
if(WEBHOOKS_BUILD_NIF)
  if(NOT ERL_NIF_INCLUDE_DIR)
    execute_process(
      COMMAND erl -noshell -eval
        "io:put_chars(filename:join([code:root_dir(), \"usr\", \"include\"])), halt()."
      OUTPUT_VARIABLE webhooks_erl_include
      ERROR_QUIET)
    set(ERL_NIF_INCLUDE_DIR "${webhooks_erl_include}" CACHE PATH "Where erl_nif.h is" FORCE)
  endif()
  if(EXISTS "${ERL_NIF_INCLUDE_DIR}/erl_nif.h")
    set(webhooks_erl_nif_found TRUE)
  else()
    # Not cached, so that the next run asks again.
    unset(ERL_NIF_INCLUDE_DIR CACHE)
  endif()
  webhooks_need("${webhooks_erl_nif_found}"
    "Erlang/OTP 25 or newer with erl_nif.h (elsewhere: -DERL_NIF_INCLUDE_DIR=DIR)"
    erlang-dev erlang-dev)
endif()

webhooks_refuse_missing()
