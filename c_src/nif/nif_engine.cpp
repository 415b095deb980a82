// Purpose: the engine as a BEAM resource.
// Ownership: the resource owns the engine, which dies with the last reference.
// The process that started an engine is monitored: without it nobody drives.
// Thread: run_once and engine_stop on dirty IO schedulers, the rest on any.
#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "nif/nif_atoms.hpp"
#include "nif/nif_engine_input.hpp"
#include "nif/nif_engine_reports.hpp"
#include "nif/nif_exit_gate.hpp"
#include "nif/nif_functions.hpp"
#include "nif/nif_resource.hpp"
#include "webhooks/engine.hpp"

namespace webhooks::nif {
namespace {

// What a normal scheduler may submit; more moves to a dirty one.
constexpr std::size_t kSubmitMax = 256;
constexpr std::size_t kSubmitBytesMax = std::size_t{256} * 1024;
constexpr std::int64_t kMaxWaitMs = 100;
constexpr std::int64_t kDrainMsMax = 600'000;

struct EngineResource;

// All live engines, for the exit of the process. It leaks: a static destructor
// would run while other threads still use it.
struct Registry {
  std::mutex mutex;
  std::vector<EngineResource*> engines;
};
Registry& registry() {
  static auto* const instance = new Registry();
  return *instance;
}

struct EngineResource {
  static constexpr char kName[] = "plausible_webhooks_engine";

  EngineResource(std::unique_ptr<Engine> started, UrlPolicy its_policy,
                 std::size_t its_body_bytes_max) noexcept
      : engine(std::move(started)),
        policy(std::move(its_policy)),
        body_bytes_max(its_body_bytes_max) {}
  ~EngineResource();
  EngineResource(const EngineResource&) = delete;
  EngineResource& operator=(const EngineResource&) = delete;

  void owner_down() noexcept { engine->request_stop(); }

  std::unique_ptr<Engine> engine;
  const UrlPolicy policy;  // of put_endpoint
  const std::size_t body_bytes_max;
  std::atomic<bool> torn_down{false};
};

void* close_engine(void* argument) {
  const GatePass pass;  // outlives the engine
  std::unique_ptr<Engine> engine(static_cast<Engine*>(argument));
  if (!pass) {
    // The process is exiting, and OpenSSL may be gone: the engine leaks.
    static_cast<void>(engine.release());
  }
  return nullptr;
}

// Closing thousands of connections takes longer than a destructor may, which
// runs on whatever scheduler drops the last reference.
EngineResource::~EngineResource() {
  try {
    const std::lock_guard<std::mutex> lock(registry().mutex);
    std::erase(registry().engines, this);
  } catch (...) {  // NOLINT(bugprone-empty-catch): nobody to tell
  }
  if (!torn_down.load()) {
    engine->request_stop();
    run_detached(close_engine, engine.release());
  }
}

EngineResource& resource_of(ErlNifEnv* env, ERL_NIF_TERM term) {
  return Resource<EngineResource>::get(env, term);
}

// A wait in milliseconds, cut to `max`.
std::uint32_t wait_ms(ErlNifEnv* env, ERL_NIF_TERM term, std::int64_t max) {
  const auto wait = expected(as_int64(env, term));
  expect(wait >= 0);
  return static_cast<std::uint32_t>(std::min(wait, max));
}

bool is_long_work(ErlNifEnv* env, ERL_NIF_TERM list) {
  ERL_NIF_TERM head;
  std::size_t count = 0;
  std::size_t bytes = 0;
  while (enif_get_list_cell(env, list, &head, &list) != 0) {
    ERL_NIF_TERM body;
    if (enif_get_map_value(env, head, atoms::body, &body) != 0) {
      bytes += as_binary(env, body).value_or(std::string_view()).size();
    }
    if (++count > kSubmitMax || bytes > kSubmitBytesMax) {
      return true;
    }
  }
  return false;
}

WEBHOOKS_NIF(submit_list) {
  return guard(env, [&] {
    EngineResource& resource = resource_of(env, argv[0]);
    std::vector<Delivery> deliveries;
    for_each_element(env, argv[1], [&](ERL_NIF_TERM item) {
      deliveries.push_back(
          read_delivery(env, item, resource.body_bytes_max,
                        deliveries.empty() ? nullptr : &deliveries.back()));
      return true;
    });
    return make_ok(
        env,
        enif_make_uint64(env, value_of(resource.engine->submit(deliveries))));
  });
}

}  // namespace

bool open_engine_resource(ErlNifEnv* env) noexcept {
  return Resource<EngineResource>::open_type(env);
}

void park_engines() noexcept {
  try {
    const std::lock_guard<std::mutex> lock(registry().mutex);
    for (EngineResource* resource : registry().engines) {
      resource->engine->request_stop();
    }
  } catch (...) {  // NOLINT(bugprone-empty-catch): the process is ending
  }
}

WEBHOOKS_NIF(nif_engine_start) {
  return guard_gated(env, [&] {
    EngineOptions options = read_engine_options(env, argv[0]);
    UrlPolicy policy = options.policy;
    const std::size_t body_bytes_max = options.body_bytes_max;
    auto engine = Engine::create(std::move(options));
    if (!engine.ok() && engine.error().reason == "invalid_option") {
      return make_error(env, "invalid_option",
                        static_atom(env, engine.error().detail));
    }
    const auto [resource, term] = Resource<EngineResource>::make(
        env, value_of(std::move(engine)), std::move(policy), body_bytes_max);
    const std::lock_guard<std::mutex> lock(registry().mutex);
    registry().engines.push_back(&resource);
    return make_ok(env, term);
  });
}

WEBHOOKS_NIF(nif_put_endpoint) {
  return guard_gated(env, [&] {
    EngineResource& resource = resource_of(env, argv[0]);
    consume_us(env, 100);
    value_of(resource.engine->put_endpoint(
        read_endpoint(env, argv[1], resource.policy)));
    return atoms::ok;
  });
}

WEBHOOKS_NIF(nif_delete_endpoint) {
  return guard(env, [&] {
    EngineResource& resource = resource_of(env, argv[0]);
    value_of(resource.engine->delete_endpoint(read_webhook_id(env, argv[1])));
    return atoms::ok;
  });
}

WEBHOOKS_NIF(nif_submit) {
  return guard(env, [&] {
    if (is_long_work(env, argv[1])) {
      return enif_schedule_nif(env, "submit", ERL_NIF_DIRTY_JOB_CPU_BOUND,
                               submit_list, argc, argv);
    }
    consume_us(env, 100);
    return submit_list(env, argc, argv);
  });
}

WEBHOOKS_NIF(nif_run_once) {
  return guard_gated(env, [&] {
    EngineResource& resource = resource_of(env, argv[0]);
    std::vector<Attempt> finished;
    value_of(
        resource.engine->run_once(wait_ms(env, argv[1], kMaxWaitMs), finished));
    std::vector<ERL_NIF_TERM> terms;
    terms.reserve(finished.size());
    for (const Attempt& attempt : finished) {
      terms.push_back(attempt_term(env, attempt));
    }
    return make_ok(env, make_list(env, terms));
  });
}

WEBHOOKS_NIF(nif_slow_slices) {
  return guard(env, [&] {
    return slow_slices_term(env,
                            resource_of(env, argv[0]).engine->slow_slices());
  });
}

WEBHOOKS_NIF(nif_stats) {
  return guard(env, [&] {
    return stats_term(env, resource_of(env, argv[0]).engine->stats());
  });
}

WEBHOOKS_NIF(nif_engine_stop) {
  return guard_gated(env, [&] {
    EngineResource& resource = resource_of(env, argv[0]);
    const auto unfinished =
        value_of(resource.engine->stop(wait_ms(env, argv[1], kDrainMsMax)));
    resource.torn_down.store(true);
    std::vector<ERL_NIF_TERM> ids;
    for (const std::string& id : unfinished) {
      ids.push_back(make_binary(env, id));
    }
    return make_ok(env, make_list(env, ids));
  });
}

}  // namespace webhooks::nif
