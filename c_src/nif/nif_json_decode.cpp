// Purpose: decode/1: builds terms from the reader's events, bottom up on two
// stacks.
// Ownership: terms are the calling NIF's.
// Thread: any scheduler. A large document moves to a dirty one.
#include <algorithm>
#include <numeric>
#include <span>
#include <vector>

#include "nif/nif_functions.hpp"
#include "nif/nif_support.hpp"
#include "webhooks/json_reader.hpp"

namespace webhooks::nif {
namespace {

// The time depends on the number of tokens, and a byte holds at most one.
constexpr std::size_t kNormalBytesMax = std::size_t{8} * 1024;
constexpr std::size_t kBytesPerUs = 160;

class TermBuilder final : public JsonEvents {
 public:
  explicit TermBuilder(ErlNifEnv* env) : env_(env) {
    values_.reserve(kStackTerms);
    keys_.reserve(kStackTerms);
  }

  void null() override { values_.push_back(atoms::nil); }
  void boolean(bool value) override {
    values_.push_back(value ? atoms::true_ : atoms::false_);
  }
  void integer(std::int64_t value) override {
    values_.push_back(enif_make_int64(env_, value));
  }
  void number(double value) override {
    values_.push_back(enif_make_double(env_, value));
  }
  void string(std::string_view utf8) override {
    values_.push_back(make_binary(env_, utf8));
  }
  void key(std::string_view utf8) override {
    keys_.push_back(make_binary(env_, utf8));
  }
  void begin_array() override { begin(); }
  void end_array() override;
  void begin_object() override { begin(); }
  void end_object() override;

  ERL_NIF_TERM term() const noexcept { return values_.back(); }

 private:
  static constexpr std::size_t kStackTerms = 64;

  // Where a container's values and keys begin.
  struct Mark {
    std::size_t values;
    std::size_t keys;
  };

  void begin() { marks_.push_back({values_.size(), keys_.size()}); }
  // The container replaces its contents.
  void end(ERL_NIF_TERM container) {
    values_.resize(marks_.back().values);
    keys_.resize(marks_.back().keys);
    marks_.pop_back();
    values_.push_back(container);
  }
  ERL_NIF_TERM last_of_each(std::span<ERL_NIF_TERM> keys,
                            std::span<ERL_NIF_TERM> values);

  ErlNifEnv* env_;
  std::vector<ERL_NIF_TERM> values_;
  std::vector<ERL_NIF_TERM> keys_;
  std::vector<Mark> marks_;
};

void TermBuilder::end_array() {
  const auto values = std::span(values_).subspan(marks_.back().values);
  end(make_list(env_, values));
}

void TermBuilder::end_object() {
  const auto keys = std::span(keys_).subspan(marks_.back().keys);
  const auto values = std::span(values_).subspan(marks_.back().values);
  // With more than 32 pairs OTP 27 misses duplicate keys and makes an invalid
  // map.
  constexpr std::size_t kCheckedMax = 32;
  ERL_NIF_TERM map;
  if (keys.size() > kCheckedMax ||
      enif_make_map_from_arrays(env_, keys.data(), values.data(), keys.size(),
                                &map) == 0) {
    map = last_of_each(keys, values);
  }
  end(map);
}

// A map of the last value of each key. Putting the pairs into the map one by
// one would leave a copy of the map's path for each: hundreds of megabytes for
// a large object.
ERL_NIF_TERM TermBuilder::last_of_each(std::span<ERL_NIF_TERM> keys,
                                       std::span<ERL_NIF_TERM> values) {
  std::vector<std::size_t> order(keys.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, [&](std::size_t left, std::size_t right) {
    return enif_compare(keys[left], keys[right]) < 0;
  });
  std::vector<ERL_NIF_TERM> last_keys;
  std::vector<ERL_NIF_TERM> last_values;
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (i + 1 == order.size() ||
        enif_is_identical(keys[order[i]], keys[order[i + 1]]) == 0) {
      last_keys.push_back(keys[order[i]]);
      last_values.push_back(values[order[i]]);
    }
  }
  ERL_NIF_TERM map = enif_make_new_map(env_);
  enif_make_map_from_arrays(env_, last_keys.data(), last_values.data(),
                            last_keys.size(), &map);
  return map;
}

}  // namespace

WEBHOOKS_NIF(nif_decode) {
  return guard(env, [&] {
    const auto json = expected(as_binary(env, argv[0]));
    if (json.size() > kNormalBytesMax &&
        enif_thread_type() == ERL_NIF_THR_NORMAL_SCHEDULER) {
      return enif_schedule_nif(env, "decode", ERL_NIF_DIRTY_JOB_CPU_BOUND,
                               nif_decode, argc, argv);
    }
    consume_us(env, json.size() / kBytesPerUs);
    try {
      TermBuilder builder(env);
      const auto fault = read_json(json, builder);
      return fault ? make_error(env, fault->reason,
                                enif_make_uint64(env, fault->offset))
                   : make_ok(env, builder.term());
    } catch (const std::bad_alloc&) {
      return make_error(env, "system_limit", enif_make_uint64(env, 0));
    }
  });
}

}  // namespace webhooks::nif
