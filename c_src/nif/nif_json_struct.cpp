// Purpose: the structs that have a JSON form: dates, times and decimals. Their
// fields are checked like any other input: a struct is a map with a name.
// Ownership: terms are the calling NIF's.
// Thread: any scheduler, one at a time.
#include "nif/nif_json.hpp"
#include "webhooks/big_integer.hpp"
#include "webhooks/decimal_text.hpp"
#include "webhooks/iso8601.hpp"

namespace webhooks::nif {

bool TermWalk::structure(ERL_NIF_TERM map, ERL_NIF_TERM module) {
  const auto is = [module](ERL_NIF_TERM name) {
    return enif_is_identical(module, name) != 0;
  };
  if (is(json_atoms::date_time)) {
    return calendar_struct(map, true, true, true);
  }
  if (is(json_atoms::naive_date_time)) {
    return calendar_struct(map, true, true, false);
  }
  if (is(json_atoms::date)) {
    return calendar_struct(map, true, false, false);
  }
  if (is(json_atoms::time)) {
    return calendar_struct(map, false, true, false);
  }
  if (is(json_atoms::decimal)) {
    return decimal(map);
  }
  return fail("unknown_struct");
}

std::optional<std::int64_t> TermWalk::field(ERL_NIF_TERM map,
                                            ERL_NIF_TERM name) {
  ERL_NIF_TERM value;
  if (enif_get_map_value(env_, map, name, &value) == 0) {
    return std::nullopt;
  }
  return as_int64(env_, value);
}

namespace {

// {value, precision}
std::optional<std::pair<std::int64_t, std::int64_t>> microseconds(
    ErlNifEnv* env, ERL_NIF_TERM map) {
  ERL_NIF_TERM value;
  int arity = 0;
  const ERL_NIF_TERM* elements = nullptr;
  if (enif_get_map_value(env, map, json_atoms::microsecond, &value) == 0 ||
      enif_get_tuple(env, value, &arity, &elements) == 0 || arity != 2) {
    return std::nullopt;
  }
  const auto count = as_int64(env, elements[0]);
  const auto precision = as_int64(env, elements[1]);
  if (!count || !precision) {
    return std::nullopt;
  }
  return std::pair(*count, *precision);
}

}  // namespace

bool TermWalk::calendar_struct(ERL_NIF_TERM map, bool date, bool time,
                               bool zone) {
  ERL_NIF_TERM calendar;
  if (enif_get_map_value(env_, map, json_atoms::calendar, &calendar) == 0) {
    return fail("invalid_struct");
  }
  if (!enif_is_identical(calendar, json_atoms::iso_calendar)) {
    return fail("unsupported_calendar");
  }
  Iso8601Text text;
  if (date) {
    const auto year = field(map, json_atoms::year);
    const auto month = field(map, json_atoms::month);
    const auto day = field(map, json_atoms::day);
    if (!year || !month || !day || !text.date({*year, *month, *day})) {
      return fail("invalid_struct");
    }
  }
  if (time) {
    if (date) {
      text.separator();
    }
    const auto hour = field(map, json_atoms::hour);
    const auto minute = field(map, json_atoms::minute);
    const auto second = field(map, json_atoms::second);
    const auto micro = microseconds(env_, map);
    if (!hour || !minute || !second || !micro ||
        !text.time({*hour, *minute, *second, micro->first, micro->second})) {
      return fail("invalid_struct");
    }
  }
  if (zone) {
    ERL_NIF_TERM name;
    const auto utc = field(map, json_atoms::utc_offset);
    const auto std = field(map, json_atoms::std_offset);
    if (!utc || !std ||
        enif_get_map_value(env_, map, json_atoms::time_zone, &name) == 0) {
      return fail("invalid_struct");
    }
    const auto zone_name = as_binary(env_, name);
    if (!zone_name || !text.offset({*utc, *std, *zone_name == "Etc/UTC"})) {
      return fail("invalid_struct");
    }
  }
  return written(writer_.string(text.view()));
}

// As a string: a number would lose its digits in most receivers.
bool TermWalk::decimal(ERL_NIF_TERM map) {
  ERL_NIF_TERM coefficient;
  const auto sign = field(map, json_atoms::sign);
  const auto exponent = field(map, json_atoms::exp);
  if (!sign || (*sign != 1 && *sign != -1) || !exponent ||
      enif_get_map_value(env_, map, json_atoms::coef, &coefficient) == 0) {
    return fail("invalid_struct");
  }
  if (enif_is_identical(coefficient, json_atoms::nan) ||
      enif_is_identical(coefficient, json_atoms::infinity)) {
    return fail("not_finite");
  }
  if (enif_term_type(env_, coefficient) != ERL_NIF_TERM_TYPE_INTEGER) {
    return fail("invalid_struct");
  }
  Text text;
  const auto digits = integer_text(coefficient, text);
  if (!digits) {
    return out_of_work_ ? false : fail("too_large");
  }
  if (digits->front() == '-') {
    return fail("invalid_struct");
  }
  const auto number = decimal_text(*sign < 0, *digits, *exponent);
  return number ? written(writer_.string(*number)) : fail("invalid_struct");
}

}  // namespace webhooks::nif
