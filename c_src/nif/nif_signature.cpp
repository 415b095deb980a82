// Purpose: sign, verify, generate_secret and generate_keypair for the BEAM.
// Ownership: keys live for one call; what they decode to is cleansed with them.
// Thread: any scheduler. Work that may take long moves to a dirty CPU
// scheduler first, so that a normal one is never held for a millisecond.
#include <openssl/crypto.h>

#include <algorithm>
#include <array>
#include <span>
#include <vector>

#include "nif/nif_support.hpp"
#include "webhooks/signature.hpp"

namespace webhooks::nif {
namespace {

// A dirty call costs about 5 us, so short work stays where it is. The figures
// are upper bounds for a machine of today without SHA instructions.
constexpr std::size_t kInlineBodyBytesMax = std::size_t{64} * 1024;
constexpr std::size_t kInlineWorkUsMax = 400;
constexpr std::size_t kHmacUs = 2;
constexpr std::size_t kHmacBytesPerUs = 300;
constexpr std::size_t kEd25519Us = 150;
constexpr std::size_t kEd25519BytesPerUs = 150;

struct Keys {
  std::array<std::string_view, kSigningKeysMax> items;
  std::size_t count = 0;  // may be one more than fit: too many
  std::span<const std::string_view> view() const noexcept {
    return {items.data(), std::min(count, items.size())};
  }
};

// nullopt: not a list of binaries.
std::optional<Keys> as_keys(ErlNifEnv* env, ERL_NIF_TERM list) noexcept {
  Keys keys;
  ERL_NIF_TERM head;
  while (enif_get_list_cell(env, list, &head, &list) != 0) {
    const auto key = as_binary(env, head);
    if (!key) {
      return std::nullopt;
    }
    if (keys.count == keys.items.size()) {
      ++keys.count;
      return keys;
    }
    keys.items[keys.count++] = *key;
  }
  if (enif_is_empty_list(env, list) == 0) {
    return std::nullopt;
  }
  return keys;
}

std::size_t work_us(const Keys& keys, std::size_t body_bytes,
                    std::size_t ed25519_factor) noexcept {
  std::size_t total = 0;
  for (const std::string_view key : keys.view()) {
    total +=
        key.starts_with("whsec_")
            ? kHmacUs + body_bytes / kHmacBytesPerUs
            : ed25519_factor * (kEd25519Us + body_bytes / kEd25519BytesPerUs);
  }
  return total;
}

bool must_go_dirty(std::size_t work, std::size_t body_bytes) noexcept {
  return enif_thread_type() == ERL_NIF_THR_NORMAL_SCHEDULER &&
         (body_bytes > kInlineBodyBytesMax || work > kInlineWorkUsMax);
}

void charge(ErlNifEnv* env, std::size_t work) noexcept {
  if (enif_thread_type() != ERL_NIF_THR_NORMAL_SCHEDULER) {
    return;
  }
  const auto percent = static_cast<int>(work / 10);  // of about 1 ms
  enif_consume_timeslice(env, std::clamp(percent, 1, 100));
}

struct SignCall {
  Keys keys;
  std::string_view id;
  std::int64_t unix_seconds;
  std::string_view body;
};

ERL_NIF_TERM run_sign(ErlNifEnv* env, const SignCall& call) {
  if (call.keys.count > kSigningKeysMax) {
    return make_error(env, "too_many_keys");
  }
  std::vector<SigningKey> keys;
  keys.reserve(call.keys.count);
  for (const std::string_view text : call.keys.view()) {
    auto key = SigningKey::parse(text);
    if (!key.ok()) {
      return make_error(env, key.error().reason);
    }
    keys.push_back(std::move(key).value());
  }
  const auto header = sign(keys, call.id, call.unix_seconds, call.body);
  if (!header.ok()) {
    return make_error(env, header.error().reason);
  }
  return make_ok(env, make_binary(env, header.value()));
}

struct VerifyCall {
  Keys keys;
  std::string_view id;
  std::int64_t unix_seconds;
  std::string_view header;
  std::string_view body;
  std::int64_t now;
  std::int64_t tolerance_s;
};

ERL_NIF_TERM run_verify(ErlNifEnv* env, const VerifyCall& call) {
  if (call.keys.count > kSigningKeysMax) {
    return make_error(env, "too_many_keys");
  }
  const Status status =
      verify(call.keys.view(), call.id, call.unix_seconds, call.header,
             call.body, call.now, call.tolerance_s);
  if (!status.ok()) {
    return make_error(env, status.error().reason);
  }
  return atoms::ok;
}

// Moves a secret into a term and leaves no second copy behind.
ERL_NIF_TERM take_secret(ErlNifEnv* env, std::string& secret) {
  const ERL_NIF_TERM term = make_binary(env, secret);
  OPENSSL_cleanse(secret.data(), secret.size());
  return term;
}

}  // namespace

WEBHOOKS_NIF(nif_sign) {
  return guard(env, [&] {
    const auto keys = as_keys(env, argv[0]);
    const auto id = as_binary(env, argv[1]);
    const auto unix_seconds = as_int64(env, argv[2]);
    const auto body = as_binary(env, argv[3]);
    if (!keys || !id || !unix_seconds || !body) {
      return enif_make_badarg(env);
    }
    const std::size_t work = work_us(*keys, body->size(), 1);
    if (must_go_dirty(work, body->size())) {
      return enif_schedule_nif(env, "sign", ERL_NIF_DIRTY_JOB_CPU_BOUND,
                               nif_sign, argc, argv);
    }
    const GatePass pass;
    if (!pass) {
      return make_error(env, "stopped");
    }
    charge(env, work);
    return run_sign(env, SignCall{*keys, *id, *unix_seconds, *body});
  });
}

WEBHOOKS_NIF(nif_verify) {
  return guard(env, [&] {
    const auto keys = as_keys(env, argv[0]);
    const auto id = as_binary(env, argv[1]);
    const auto unix_seconds = as_int64(env, argv[2]);
    const auto header = as_binary(env, argv[3]);
    const auto body = as_binary(env, argv[4]);
    const auto now = as_int64(env, argv[5]);
    const auto tolerance_s = as_int64(env, argv[6]);
    if (!keys || !id || !unix_seconds || !header || !body || !now ||
        !tolerance_s || *tolerance_s < 0) {
      return enif_make_badarg(env);
    }
    // Every public key may have to be tried against every v1a entry.
    const auto commas =
        std::ranges::count(header->substr(0, kSignatureHeaderBytesMax), ',');
    const std::size_t work =
        work_us(*keys, body->size(), static_cast<std::size_t>(commas));
    if (must_go_dirty(work, body->size())) {
      return enif_schedule_nif(env, "verify", ERL_NIF_DIRTY_JOB_CPU_BOUND,
                               nif_verify, argc, argv);
    }
    const GatePass pass;
    if (!pass) {
      return make_error(env, "stopped");
    }
    charge(env, work);
    return run_verify(env, VerifyCall{*keys, *id, *unix_seconds, *header, *body,
                                      *now, *tolerance_s});
  });
}

WEBHOOKS_NIF(nif_generate_secret) {
  static_cast<void>(argc);
  static_cast<void>(argv);
  return guard(env, [&] {
    const GatePass pass;
    if (!pass) {
      return make_error(env, "stopped");
    }
    auto secret = generate_secret();
    if (!secret.ok()) {
      return make_error(env, secret.error().reason);
    }
    return make_ok(env, take_secret(env, secret.value()));
  });
}

WEBHOOKS_NIF(nif_generate_keypair) {
  static_cast<void>(argc);
  static_cast<void>(argv);
  return guard(env, [&] {
    const GatePass pass;
    if (!pass) {
      return make_error(env, "stopped");
    }
    auto pair = generate_keypair();
    if (!pair.ok()) {
      return make_error(env, pair.error().reason);
    }
    charge(env, kEd25519Us);
    return make_ok(
        env, enif_make_tuple2(env, take_secret(env, pair.value().signing_key),
                              make_binary(env, pair.value().public_key)));
  });
}

bool load_signature(ErlNifEnv* /*env*/) noexcept {
  const GatePass pass;
  return pass && prepare_signing();
}

}  // namespace webhooks::nif
