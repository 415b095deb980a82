#include "nif/nif_engine_reports.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "nif/nif_atoms.hpp"
#include "nif/nif_support.hpp"

namespace webhooks::nif {
namespace {

ERL_NIF_TERM state_atom(DeliveryState state) {
  switch (state) {
    case DeliveryState::kDelivered:
      return atoms::delivered;
    case DeliveryState::kPending:
      return atoms::pending;
    case DeliveryState::kParked:
      return atoms::parked;
    case DeliveryState::kFailed:
      return atoms::failed;
    case DeliveryState::kCancelled:
      break;
  }
  return atoms::cancelled;
}

ERL_NIF_TERM optional_number(ErlNifEnv* env,
                             const std::optional<std::uint64_t>& n) {
  return n ? enif_make_uint64(env, *n) : atoms::nil;
}
ERL_NIF_TERM optional_text(ErlNifEnv* env, const std::string& text) {
  return text.empty() ? atoms::nil : make_binary(env, text);
}
ERL_NIF_TERM boolean(bool value) {
  return value ? atoms::true_ : atoms::false_;
}

}  // namespace

ERL_NIF_TERM attempt_term(ErlNifEnv* env, const Attempt& attempt) {
  const ERL_NIF_TERM next = attempt.next_at_ms
                                ? enif_make_int64(env, *attempt.next_at_ms)
                                : atoms::nil;
  const Pair pairs[] = {
      {atoms::struct_key, atoms::attempt_module},
      {atoms::delivery_id, make_binary(env, attempt.delivery_id)},
      {atoms::webhook_id, make_binary(env, attempt.webhook_id)},
      {atoms::number, enif_make_uint(env, attempt.number)},
      {atoms::schedule_from, enif_make_uint(env, attempt.schedule_from)},
      {atoms::state, state_atom(attempt.state)},
      {atoms::status,
       attempt.status != 0 ? enif_make_uint(env, attempt.status) : atoms::nil},
      {atoms::error, attempt.error != ErrorClass::kNone
                         ? static_atom(env, error_name(attempt.error))
                         : atoms::nil},
      {atoms::detail, optional_text(env, attempt.detail)},
      {atoms::started_at_ms, enif_make_int64(env, attempt.started_at_ms)},
      {atoms::signed_at_s, attempt.signed_at_s
                               ? enif_make_int64(env, *attempt.signed_at_s)
                               : atoms::nil},
      {atoms::dns_us, optional_number(env, attempt.dns_us)},
      {atoms::connect_us, optional_number(env, attempt.connect_us)},
      {atoms::tls_us, optional_number(env, attempt.tls_us)},
      {atoms::first_byte_us, optional_number(env, attempt.first_byte_us)},
      {atoms::total_us, optional_number(env, attempt.total_us)},
      {atoms::remote_ip, optional_text(env, attempt.remote_ip)},
      {atoms::response_headers, make_binary(env, attempt.response_headers)},
      {atoms::response_body, make_binary(env, attempt.response_body)},
      {atoms::response_truncated, boolean(attempt.response_truncated)},
      {atoms::next_at_ms, next},
      {atoms::gone, boolean(attempt.gone)},
      {atoms::retry, boolean(attempt.retry)},
  };
  return make_map(env, pairs);
}

ERL_NIF_TERM slow_slices_term(ErlNifEnv* env,
                              const std::vector<SlowSlice>& slices) {
  std::vector<ERL_NIF_TERM> terms;
  terms.reserve(slices.size());
  for (const SlowSlice& slice : slices) {
    terms.push_back(enif_make_tuple2(env, optional_text(env, slice.webhook_id),
                                     enif_make_uint64(env, slice.took_ms)));
  }
  return make_list(env, terms);
}

ERL_NIF_TERM stats_term(ErlNifEnv* env, const EngineStats& stats) {
  const std::pair<const char*, std::uint64_t> numbers[] = {
      {"in_flight", stats.in_flight},
      {"waiting", stats.waiting},
      {"waiting_bytes", stats.waiting_bytes},
      {"lanes", stats.lanes},
      {"finished_unread", stats.finished_unread},
      {"in_flight_max", stats.in_flight_max},
      {"submitted", stats.submitted},
      {"attempts", stats.attempts},
      {"delivered", stats.delivered},
      {"retried", stats.retried},
      {"parked", stats.parked},
      {"failed", stats.failed},
      {"cancelled", stats.cancelled},
      {"connections_opened", stats.connections_opened},
      {"lookups", stats.lookups},
      {"loop_turns", stats.loop_turns},
      {"slow_slices", stats.slow_slices},
  };
  ERL_NIF_TERM map = enif_make_new_map(env);
  for (const auto& number : numbers) {
    enif_make_map_put(env, map, static_atom(env, number.first),
                      enif_make_uint64(env, number.second), &map);
  }
  enif_make_map_put(env, map, static_atom(env, "stopped"),
                    boolean(stats.stopped), &map);
  return map;
}

}  // namespace webhooks::nif
