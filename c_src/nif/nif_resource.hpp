// Purpose: a C++ object as a BEAM resource whose process is monitored, and a
// library's load and upgrade.
// Ownership: the last reference to the term destroys the object.
// Thread: an object's owner_down() and destructor run on any scheduler, so they
// are short.
#pragma once

#include <atomic>
#include <new>
#include <type_traits>
#include <utility>

#include "nif/nif_support.hpp"

namespace webhooks::nif {

// T has a `kName` and an `owner_down() noexcept`.
template <class T>
class Resource {
 public:
  // Creates the type, or takes it over from the library that an upgrade
  // replaces.
  static bool open_type(ErlNifEnv* env) noexcept {
    ErlNifResourceTypeInit init{};
    init.dtor = [](ErlNifEnv*, void* object) { static_cast<T*>(object)->~T(); };
    init.down = [](ErlNifEnv*, void* object, ErlNifPid*, ErlNifMonitor*) {
      static_cast<T*>(object)->owner_down();
    };
    constexpr auto kFlags = static_cast<ErlNifResourceFlags>(
        ERL_NIF_RT_CREATE | ERL_NIF_RT_TAKEOVER);
    type_ = enif_open_resource_type_x(env, T::kName, &init, kFlags, nullptr);
    return type_.load() != nullptr;
  }

  static T& get(ErlNifEnv* env, ERL_NIF_TERM term) {
    void* object = nullptr;
    expect(enif_get_resource(env, term, type_.load(), &object) != 0);
    return *static_cast<T*>(object);
  }

  // A new object, which the term owns.
  template <class... Arguments>
  static std::pair<T&, ERL_NIF_TERM> make(ErlNifEnv* env,
                                          Arguments&&... arguments) {
    // The destructor would run on what a constructor that throws leaves behind.
    static_assert(std::is_nothrow_constructible_v<T, Arguments...>);
    void* memory = enif_alloc_resource(type_.load(), sizeof(T));
    if (memory == nullptr) {
      throw std::bad_alloc();
    }
    T* object = new (memory) T(std::forward<Arguments>(arguments)...);
    const ERL_NIF_TERM term = enif_make_resource(env, object);
    enif_release_resource(object);
    ErlNifPid self;
    // Not zero: the caller is dead already.
    if (enif_self(env, &self) == nullptr ||
        enif_monitor_process(env, object, &self, nullptr) != 0) {
      object->owner_down();
    }
    return {*object, term};
  }

 private:
  // Atomic: an upgrade writes it while dirty schedulers read it.
  static inline std::atomic<ErlNifResourceType*> type_{nullptr};
};

// Raised whenever resource layouts or the load_info contract change: the
// upgrade is then refused instead of reinterpreting live memory.
inline constexpr int kAbi = 1;

// `open` prepares a library. Its result, 0 or the number of a failure from 2,
// is in load_nif's error text.
using OpenLibrary = int (*)(ErlNifEnv*) noexcept;

template <OpenLibrary open>
int load(ErlNifEnv* env, void** /*priv*/, ERL_NIF_TERM load_info) noexcept {
  int abi = 0;
  return enif_get_int(env, load_info, &abi) != 0 && abi == kAbi ? open(env) : 1;
}
template <OpenLibrary open>
int upgrade(ErlNifEnv* env, void** priv, void** /*old_priv*/,
            ERL_NIF_TERM load_info) noexcept {
  return load<open>(env, priv, load_info);
}

}  // namespace webhooks::nif
