// Purpose: sign, verify and generate_secret for the BEAM.
// Ownership: keys live for one call.
// Thread: any scheduler. Long work moves to a dirty CPU scheduler first, so
// that a normal one is never held for a millisecond.
#include <openssl/crypto.h>

#include <span>
#include <vector>

#include "nif/nif_exit_gate.hpp"
#include "nif/nif_functions.hpp"
#include "nif/nif_read.hpp"
#include "webhooks/signature.hpp"

namespace webhooks::nif {
namespace {

using Keys = std::vector<std::string_view>;

// Reads at most one key too many, which the core refuses.
ReadStatus read_keys(ErlNifEnv* env, ERL_NIF_TERM list, Keys* keys) {
  return read_list(env, list, [&](ERL_NIF_TERM item) {
    const auto key = as_binary(env, item);
    if (!key) {
      return kBadarg;
    }
    keys->push_back(*key);
    return keys->size() > kSigningKeysMax ? failed("too_many_keys") : kRead;
  });
}

// An upper bound for a machine without SHA instructions.
std::size_t work_us(const Keys& keys, std::size_t body_bytes) noexcept {
  constexpr std::size_t kKeyUs = 2;
  constexpr std::size_t kBytesPerUs = 300;
  return keys.size() * (kKeyUs + body_bytes / kBytesPerUs);
}

// A dirty call costs about 5 us, so short work does not move: with one key a
// body of up to 64 KiB.
bool must_go_dirty(std::size_t us) noexcept {
  constexpr std::size_t kNormalUsMax = 220;
  return us > kNormalUsMax &&
         enif_thread_type() == ERL_NIF_THR_NORMAL_SCHEDULER;
}

}  // namespace

WEBHOOKS_NIF(nif_sign) {
  return guard_gated(env, [&] {
    Keys keys;
    const ReadStatus status = read_keys(env, argv[0], &keys);
    const auto id = as_binary(env, argv[1]);
    const auto unix_seconds = as_int64(env, argv[2]);
    const auto body = as_binary(env, argv[3]);
    if (status.badarg || !id || !unix_seconds || !body) {
      return enif_make_badarg(env);
    }
    const std::size_t us = work_us(keys, body->size());
    if (must_go_dirty(us)) {
      return enif_schedule_nif(env, "sign", ERL_NIF_DIRTY_JOB_CPU_BOUND,
                               nif_sign, argc, argv);
    }
    consume_us(env, us);
    const auto header = sign(keys, *id, *unix_seconds, *body);
    return header.ok() ? make_ok(env, make_binary(env, header.value()))
                       : make_error(env, header.error().reason);
  });
}

WEBHOOKS_NIF(nif_verify) {
  return guard_gated(env, [&] {
    Keys keys;
    const ReadStatus status = read_keys(env, argv[0], &keys);
    const auto id = as_binary(env, argv[1]);
    const auto unix_seconds = as_int64(env, argv[2]);
    const auto header = as_binary(env, argv[3]);
    const auto body = as_binary(env, argv[4]);
    const auto now = as_int64(env, argv[5]);
    const auto tolerance_s = as_int64(env, argv[6]);
    if (status.badarg || !id || !unix_seconds || !header || !body || !now ||
        !tolerance_s || *tolerance_s < 0) {
      return enif_make_badarg(env);
    }
    const std::size_t us = work_us(keys, body->size());
    if (must_go_dirty(us)) {
      return enif_schedule_nif(env, "verify", ERL_NIF_DIRTY_JOB_CPU_BOUND,
                               nif_verify, argc, argv);
    }
    consume_us(env, us);
    const Status verified =
        verify(keys, *id, *unix_seconds, *header, *body, *now, *tolerance_s);
    return verified.ok() ? atoms::ok : make_error(env, verified.error().reason);
  });
}

WEBHOOKS_NIF(nif_generate_secret) {
  return guard_gated(env, [&] {
    auto secret = generate_secret();
    if (!secret.ok()) {
      return make_error(env, secret.error().reason);
    }
    const ERL_NIF_TERM term = make_binary(env, secret.value());
    OPENSSL_cleanse(secret.value().data(), secret.value().size());
    return make_ok(env, term);
  });
}

}  // namespace webhooks::nif
