// Purpose: the engine as a BEAM resource.
// Ownership: the resource owns the engine, which dies with the last reference.
// The process that started an engine is monitored: without it nobody drives.
// Thread: run_once and engine_stop on dirty IO schedulers, the rest on any.
#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

#include "nif/nif_atoms.hpp"
#include "nif/nif_engine_input.hpp"
#include "nif/nif_engine_reports.hpp"
#include "nif/nif_exit_gate.hpp"
#include "nif/nif_functions.hpp"
#include "webhooks/engine.hpp"

namespace webhooks::nif {
namespace {

struct EngineResource {
  std::unique_ptr<Engine> engine;
  UrlPolicy policy;  // of put_endpoint; never changes
  std::size_t body_bytes_max = 0;
  std::atomic<bool> torn_down{false};
};

// Atomic: an upgrade writes it while dirty schedulers read it.
std::atomic<ErlNifResourceType*> engine_type{nullptr};

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

// What a normal scheduler may submit; more moves to a dirty one.
constexpr std::size_t kSubmitMax = 256;
constexpr std::size_t kSubmitBytesMax = std::size_t{256} * 1024;
constexpr std::int64_t kMaxWaitMs = 100;
constexpr std::int64_t kDrainMsMax = 600'000;

EngineResource* resource_of(ErlNifEnv* env, ERL_NIF_TERM term) {
  void* object = nullptr;
  if (enif_get_resource(env, term, engine_type.load(), &object) == 0) {
    return nullptr;
  }
  return static_cast<EngineResource*>(object);
}

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
void close_elsewhere(std::unique_ptr<Engine> engine) noexcept {
  engine->request_stop();
  run_detached(close_engine, engine.release());
}

void destroy(ErlNifEnv* /*env*/, void* object) noexcept {
  auto* resource = static_cast<EngineResource*>(object);
  try {
    const std::lock_guard<std::mutex> lock(registry().mutex);
    std::erase(registry().engines, resource);
  } catch (...) {  // NOLINT(bugprone-empty-catch): nobody to tell
  }
  if (resource->engine && !resource->torn_down.load()) {
    close_elsewhere(std::move(resource->engine));
  }
  resource->~EngineResource();
}

void owner_down(ErlNifEnv* /*env*/, void* object, ErlNifPid* /*pid*/,
                ErlNifMonitor* /*monitor*/) noexcept {
  auto* resource = static_cast<EngineResource*>(object);
  if (resource->engine) {
    resource->engine->request_stop();
  }
}

ERL_NIF_TERM start_engine(ErlNifEnv* env, EngineOptions options) {
  const UrlPolicy policy = options.policy;
  const std::size_t body_bytes_max = options.body_bytes_max;
  auto engine = Engine::create(std::move(options));
  if (!engine.ok()) {
    const Error& error = engine.error();
    return error.reason == "invalid_option"
               ? error_term(env, invalid_option(error.detail))
               : make_error(env, error.reason);
  }
  void* memory =
      enif_alloc_resource(engine_type.load(), sizeof(EngineResource));
  if (memory == nullptr) {
    return make_error(env, "system_limit");
  }
  auto* resource = new (memory) EngineResource();
  const ERL_NIF_TERM term = enif_make_resource(env, resource);
  enif_release_resource(resource);
  resource->engine = std::move(engine).value();
  resource->policy = policy;
  resource->body_bytes_max = body_bytes_max;
  {
    const std::lock_guard<std::mutex> lock(registry().mutex);
    registry().engines.push_back(resource);
  }
  ErlNifPid self;
  // Not zero: the caller is dead already.
  if (enif_self(env, &self) == nullptr ||
      enif_monitor_process(env, resource, &self, nullptr) != 0) {
    resource->engine->request_stop();
  }
  return make_ok(env, term);
}

bool is_long_work(ErlNifEnv* env, ERL_NIF_TERM list) {
  ERL_NIF_TERM head;
  std::size_t count = 0;
  std::size_t bytes = 0;
  while (enif_get_list_cell(env, list, &head, &list) != 0) {
    ERL_NIF_TERM body;
    if (enif_get_map_value(env, head, atoms::body, &body) != 0) {
      if (const auto binary = as_binary(env, body)) {
        bytes += binary->size();
      }
    }
    if (++count > kSubmitMax || bytes > kSubmitBytesMax) {
      return true;
    }
  }
  return false;
}

WEBHOOKS_NIF(submit_list) {
  return guard(env, [&] {
    EngineResource* resource = resource_of(env, argv[0]);
    if (resource == nullptr) {
      return enif_make_badarg(env);
    }
    std::vector<Delivery> deliveries;
    const ReadStatus status = read_list(env, argv[1], [&](ERL_NIF_TERM item) {
      const Delivery* previous =
          deliveries.empty() ? nullptr : &deliveries.back();
      Delivery delivery;
      const ReadStatus read = read_delivery(env, item, resource->body_bytes_max,
                                            previous, &delivery);
      deliveries.push_back(std::move(delivery));
      return read;
    });
    if (!status.ok()) {
      return error_term(env, status);
    }
    const auto taken = resource->engine->submit(deliveries);
    return taken.ok() ? make_ok(env, enif_make_uint64(env, taken.value()))
                      : make_error(env, taken.error().reason);
  });
}

ERL_NIF_TERM ok_list(ErlNifEnv* env, const std::vector<ERL_NIF_TERM>& terms) {
  return make_ok(
      env, enif_make_list_from_array(env, terms.data(),
                                     static_cast<unsigned>(terms.size())));
}

}  // namespace

bool open_engine_resource(ErlNifEnv* env, ErlNifResourceFlags flags) noexcept {
  ErlNifResourceTypeInit init{};
  init.dtor = destroy;
  init.down = owner_down;
  engine_type = enif_open_resource_type_x(env, "plausible_webhooks_engine",
                                          &init, flags, nullptr);
  return engine_type.load() != nullptr;
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
    EngineOptions options;
    const ReadStatus status = read_engine_options(env, argv[0], &options);
    return status.ok() ? start_engine(env, std::move(options))
                       : error_term(env, status);
  });
}

WEBHOOKS_NIF(nif_put_endpoint) {
  return guard_gated(env, [&] {
    EngineResource* resource = resource_of(env, argv[0]);
    if (resource == nullptr) {
      return enif_make_badarg(env);
    }
    consume_us(env, 100);
    Endpoint endpoint;
    const ReadStatus read =
        read_endpoint(env, argv[1], resource->policy, &endpoint);
    if (!read.ok()) {
      return error_term(env, read);
    }
    const Status put = resource->engine->put_endpoint(std::move(endpoint));
    return put.ok() ? atoms::ok : make_error(env, put.error().reason);
  });
}

WEBHOOKS_NIF(nif_delete_endpoint) {
  return guard(env, [&] {
    EngineResource* resource = resource_of(env, argv[0]);
    const auto id = as_binary(env, argv[1]);
    if (resource == nullptr || !id) {
      return enif_make_badarg(env);
    }
    // No endpoint has such an id, and copying it could take long.
    if (id->size() > kWebhookIdBytesMax) {
      return make_error(env, "invalid_webhook_id");
    }
    const Status status = resource->engine->delete_endpoint(std::string(*id));
    return status.ok() ? atoms::ok : make_error(env, status.error().reason);
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
    EngineResource* resource = resource_of(env, argv[0]);
    const auto wait_ms = as_int64(env, argv[1]);
    if (resource == nullptr || !wait_ms || *wait_ms < 0) {
      return enif_make_badarg(env);
    }
    std::vector<Attempt> finished;
    const Status status = resource->engine->run_once(
        static_cast<std::uint32_t>(std::min(*wait_ms, kMaxWaitMs)), finished);
    if (!status.ok()) {
      return make_error(env, status.error().reason);
    }
    std::vector<ERL_NIF_TERM> terms;
    terms.reserve(finished.size());
    for (const Attempt& attempt : finished) {
      terms.push_back(attempt_term(env, attempt));
    }
    return ok_list(env, terms);
  });
}

WEBHOOKS_NIF(nif_stats) {
  return guard(env, [&] {
    EngineResource* resource = resource_of(env, argv[0]);
    return resource == nullptr ? enif_make_badarg(env)
                               : stats_term(env, resource->engine->stats());
  });
}

WEBHOOKS_NIF(nif_engine_stop) {
  return guard_gated(env, [&] {
    EngineResource* resource = resource_of(env, argv[0]);
    const auto drain_ms = as_int64(env, argv[1]);
    if (resource == nullptr || !drain_ms || *drain_ms < 0) {
      return enif_make_badarg(env);
    }
    const auto unfinished = resource->engine->stop(
        static_cast<std::uint32_t>(std::min(*drain_ms, kDrainMsMax)));
    if (!unfinished.ok()) {
      return make_error(env, unfinished.error().reason);
    }
    resource->torn_down.store(true);
    std::vector<ERL_NIF_TERM> ids;
    for (const std::string& id : unfinished.value()) {
      ids.push_back(make_binary(env, id));
    }
    return ok_list(env, ids);
  });
}

}  // namespace webhooks::nif
