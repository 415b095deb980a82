// Purpose: the NIFs encode/1 and decode/1: both begin on the caller's normal
// scheduler and move to a dirty one when there is more to do than a normal one
// may be held for.
// Ownership: results are the caller's; nothing outlives a call.
// Thread: any scheduler.
#include "nif/nif_json.hpp"

#include <algorithm>
#include <limits>
#include <new>

#include "nif/nif_json_decode.hpp"

namespace webhooks::nif {

namespace json_atoms {
#define X(name, text) ERL_NIF_TERM name;
WEBHOOKS_JSON_ATOMS(X)
#undef X
}  // namespace json_atoms

void load_json(ErlNifEnv* env) noexcept {
#define X(name, text) json_atoms::name = enif_make_atom(env, text);
  WEBHOOKS_JSON_ATOMS(X)
#undef X
}

void charge(ErlNifEnv* env, std::size_t work) noexcept {
  const std::size_t percent = work / kWorkPerPercent + 1;
  enif_consume_timeslice(env,
                         static_cast<int>(std::min<std::size_t>(percent, 100)));
}

namespace {

// A larger document starts on a dirty scheduler at once: the cost is in the
// number of tokens, and there is at most one per byte.
constexpr std::size_t kNormalDecodeBytesMax = kNormalWorkMax / kFragmentWork;

ERL_NIF_TERM encode_error(ErlNifEnv* env, std::string_view reason,
                          ERL_NIF_TERM path) {
  return enif_make_tuple2(
      env, atoms::error, enif_make_tuple2(env, static_atom(env, reason), path));
}

// nullopt: more than `work_max`, nothing came of it.
std::optional<ERL_NIF_TERM> encode_term(ErlNifEnv* env, ERL_NIF_TERM term,
                                        std::size_t work_max) {
  try {
    JsonWriter writer;
    TermWalk walk(env, writer, work_max);
    const TermWalk::Outcome outcome = walk.run(term);
    if (work_max == kNormalWorkMax) {
      charge(env, walk.work());
    }
    switch (outcome) {
      case TermWalk::Outcome::done:
        return make_ok(env, make_binary(env, writer.text()));
      case TermWalk::Outcome::failed:
        return encode_error(env, walk.reason(), walk.path());
      case TermWalk::Outcome::out_of_work:
        break;
    }
    return std::nullopt;
  } catch (const std::bad_alloc&) {
    return encode_error(env, "system_limit", enif_make_list(env, 0));
  }
}

WEBHOOKS_NIF(encode_dirty) {
  static_cast<void>(argc);
  return guard(env, [&] {
    constexpr std::size_t kUnlimited = std::numeric_limits<std::size_t>::max();
    return *encode_term(env, argv[0], kUnlimited);
  });
}

WEBHOOKS_NIF(decode_dirty) {
  static_cast<void>(argc);
  return guard(env, [&] {
    const auto json = as_binary(env, argv[0]);
    return json ? decode_json(env, *json) : enif_make_badarg(env);
  });
}

}  // namespace

WEBHOOKS_NIF(nif_encode) {
  return guard(env, [&] {
    if (const auto result = encode_term(env, argv[0], kNormalWorkMax)) {
      return *result;
    }
    // From the start: what is thrown away is less than what keeping a
    // half-walked term alive over two calls would take.
    return enif_schedule_nif(env, "encode", ERL_NIF_DIRTY_JOB_CPU_BOUND,
                             encode_dirty, argc, argv);
  });
}

WEBHOOKS_NIF(nif_decode) {
  return guard(env, [&] {
    const auto json = as_binary(env, argv[0]);
    if (!json) {
      return enif_make_badarg(env);
    }
    if (json->size() > kNormalDecodeBytesMax) {
      return enif_schedule_nif(env, "decode", ERL_NIF_DIRTY_JOB_CPU_BOUND,
                               decode_dirty, argc, argv);
    }
    const ERL_NIF_TERM result = decode_json(env, *json);
    charge(env, kParserWork + json->size() * kFragmentWork);
    return result;
  });
}

}  // namespace webhooks::nif
