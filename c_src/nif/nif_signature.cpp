// Purpose: sign, verify and generate_secret for the BEAM.
// Ownership: keys live for one call.
// Thread: any scheduler. Long work moves to a dirty CPU scheduler first, so
// that a normal one is never held for a millisecond.
#include <openssl/crypto.h>

#include <vector>

#include "nif/nif_exit_gate.hpp"
#include "nif/nif_functions.hpp"
#include "nif/nif_read.hpp"
#include "webhooks/signature.hpp"

namespace webhooks::nif {
namespace {

using Keys = std::vector<std::string_view>;

// Reads at most one key too many, which the core refuses.
Keys read_keys(ErlNifEnv* env, ERL_NIF_TERM list) {
  Keys keys;
  for_each_element(env, list, [&](ERL_NIF_TERM item) {
    keys.push_back(expected(as_binary(env, item)));
    return keys.size() <= kSigningKeysMax;
  });
  return keys;
}

// Whether the call must move to a dirty scheduler. The time is an upper bound
// for a machine without SHA instructions. A dirty call costs about 5 us, so
// short work does not move: with one key a body of up to 64 KiB.
bool is_long_work(ErlNifEnv* env, const Keys& keys, std::size_t body_bytes) {
  constexpr std::size_t kKeyUs = 2;
  constexpr std::size_t kBytesPerUs = 300;
  constexpr std::size_t kNormalUsMax = 220;
  const std::size_t us = keys.size() * (kKeyUs + body_bytes / kBytesPerUs);
  if (us > kNormalUsMax && enif_thread_type() == ERL_NIF_THR_NORMAL_SCHEDULER) {
    return true;
  }
  consume_us(env, us);
  return false;
}

}  // namespace

WEBHOOKS_NIF(nif_sign) {
  return guard_gated(env, [&] {
    const Keys keys = read_keys(env, argv[0]);
    const auto id = expected(as_binary(env, argv[1]));
    const auto unix_seconds = expected(as_int64(env, argv[2]));
    const auto body = expected(as_binary(env, argv[3]));
    if (is_long_work(env, keys, body.size())) {
      return enif_schedule_nif(env, "sign", ERL_NIF_DIRTY_JOB_CPU_BOUND,
                               nif_sign, argc, argv);
    }
    return make_ok(
        env, make_binary(env, value_of(sign(keys, id, unix_seconds, body))));
  });
}

WEBHOOKS_NIF(nif_verify) {
  return guard_gated(env, [&] {
    const Keys keys = read_keys(env, argv[0]);
    const auto id = expected(as_binary(env, argv[1]));
    const auto unix_seconds = expected(as_int64(env, argv[2]));
    const auto header = expected(as_binary(env, argv[3]));
    const auto body = expected(as_binary(env, argv[4]));
    const auto now = expected(as_int64(env, argv[5]));
    const auto tolerance_s = expected(as_int64(env, argv[6]));
    expect(tolerance_s >= 0);
    if (is_long_work(env, keys, body.size())) {
      return enif_schedule_nif(env, "verify", ERL_NIF_DIRTY_JOB_CPU_BOUND,
                               nif_verify, argc, argv);
    }
    value_of(verify(keys, id, unix_seconds, header, body, now, tolerance_s));
    return atoms::ok;
  });
}

WEBHOOKS_NIF(nif_generate_secret) {
  return guard_gated(env, [&] {
    std::string secret = value_of(generate_secret());
    const ERL_NIF_TERM term = make_binary(env, secret);
    OPENSSL_cleanse(secret.data(), secret.size());
    return make_ok(env, term);
  });
}

}  // namespace webhooks::nif
