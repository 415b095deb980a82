// Purpose: the engine as a BEAM resource.
// Ownership: the resource owns the engine; it dies with the last reference. A
// process that started an engine is monitored: without it nobody drives.
// Thread: run_once and engine_stop on dirty IO schedulers, the rest on any.
#include <algorithm>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

#include "nif/nif_engine_terms.hpp"
#include "nif/nif_support.hpp"
#include "webhooks/engine.hpp"

namespace webhooks::nif {
namespace {

struct EngineResource {
  std::unique_ptr<Engine> engine;
  UrlPolicy policy;  // what put_endpoint judges by; never changes
  std::size_t body_bytes_max = 0;
  std::atomic<bool> torn_down{false};
};

ErlNifResourceType* engine_type = nullptr;

// All live engines, for the exit of the process. Leaked on purpose: static
// destructors run while other threads still use it.
struct Registry {
  std::mutex mutex;
  std::vector<EngineResource*> engines;
};
Registry& registry() {
  static auto* const instance = new Registry();
  return *instance;
}

// What a normal scheduler takes on in one submit; more goes to a dirty one.
constexpr std::size_t kSubmitMax = 256;
constexpr std::size_t kSubmitBytesMax = std::size_t{256} * 1024;
constexpr std::uint32_t kMaxWaitMs = 100;

EngineResource* resource_of(ErlNifEnv* env, ERL_NIF_TERM term) {
  void* object = nullptr;
  if (enif_get_resource(env, term, engine_type, &object) == 0) {
    return nullptr;
  }
  return static_cast<EngineResource*>(object);
}

extern "C" void* webhooks_engine_janitor(void* argument) {
  std::unique_ptr<Engine> engine(static_cast<Engine*>(argument));
  const GatePass pass;
  if (pass) {
    engine.reset();
  } else {
    // The process is exiting: leave the engine to it, OpenSSL may be gone.
    static_cast<void>(engine.release());
  }
  return nullptr;
}

// Closing thousands of connections takes longer than a destructor may, which
// runs on whatever scheduler collects the last reference.
void close_elsewhere(std::unique_ptr<Engine> engine) noexcept {
  engine->request_stop();
  // Without a thread to be had the engine leaks, which is better than a
  // scheduler that stands still.
  run_detached(webhooks_engine_janitor, engine.release());
}

void destroy(ErlNifEnv* /*env*/, void* object) noexcept {
  auto* resource = static_cast<EngineResource*>(object);
  try {
    const std::lock_guard<std::mutex> lock(registry().mutex);
    std::erase(registry().engines, resource);
  } catch (...) {  // NOLINT(bugprone-empty-catch): a destructor says nothing
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

ERL_NIF_TERM error_of(ErlNifEnv* env, const ReadStatus& status) {
  if (status.badarg) {
    return enif_make_badarg(env);
  }
  if (status.option.empty()) {
    return make_error(env, status.reason);
  }
  return enif_make_tuple2(env, atoms::error,
                          enif_make_tuple2(env, static_atom(env, status.reason),
                                           static_atom(env, status.option)));
}

ERL_NIF_TERM start_engine(ErlNifEnv* env, EngineOptions options) {
  const UrlPolicy policy = options.policy;
  const std::size_t body_bytes_max = options.body_bytes_max;
  auto engine = Engine::create(std::move(options));
  if (!engine.ok()) {
    const Error& error = engine.error();
    if (error.reason != "invalid_option") {
      return make_error(env, error.reason);
    }
    // The detail of this reason is one of the option names.
    return error_of(env, {false, error.reason, error.detail});
  }
  void* memory = enif_alloc_resource(engine_type, sizeof(EngineResource));
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
  // Not zero: the caller is gone already, and nobody would ever drive.
  if (enif_self(env, &self) == nullptr ||
      enif_monitor_process(env, resource, &self, nullptr) != 0) {
    resource->engine->request_stop();
  }
  return make_ok(env, term);
}

// Is this list more than a normal scheduler may be kept busy with?
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

ERL_NIF_TERM submit_list(ErlNifEnv* env, int /*argc*/,
                         const ERL_NIF_TERM argv[]) {
  return guard(env, [&] {
    EngineResource* resource = resource_of(env, argv[0]);
    if (resource == nullptr) {
      return enif_make_badarg(env);
    }
    std::vector<Delivery> deliveries;
    ERL_NIF_TERM list = argv[1];
    ERL_NIF_TERM head;
    while (enif_get_list_cell(env, list, &head, &list) != 0) {
      Delivery delivery;
      const Delivery* previous =
          deliveries.empty() ? nullptr : &deliveries.back();
      const ReadStatus status = read_delivery(
          env, head, resource->body_bytes_max, previous, &delivery);
      if (!status.ok()) {
        return error_of(env, status);
      }
      deliveries.push_back(std::move(delivery));
    }
    if (enif_is_empty_list(env, list) == 0) {
      return enif_make_badarg(env);
    }
    const auto taken = resource->engine->submit(deliveries);
    if (!taken.ok()) {
      return make_error(env, taken.error().reason);
    }
    return make_ok(env, enif_make_uint64(env, taken.value()));
  });
}

}  // namespace

bool open_engine_resource(ErlNifEnv* env, ErlNifResourceFlags flags) noexcept {
  ErlNifResourceTypeInit init{};
  init.dtor = destroy;
  init.down = owner_down;
  engine_type = enif_open_resource_type_x(env, "plausible_webhooks_engine",
                                          &init, flags, nullptr);
  return engine_type != nullptr;
}

void park_engines(int /*wait_ms*/) noexcept {
  try {
    const std::lock_guard<std::mutex> lock(registry().mutex);
    for (EngineResource* resource : registry().engines) {
      if (resource->engine) {
        resource->engine->request_stop();
      }
    }
  } catch (...) {  // NOLINT(bugprone-empty-catch): the process is ending
  }
}

WEBHOOKS_NIF(nif_engine_start) {
  static_cast<void>(argc);
  return guard(env, [&] {
    const GatePass pass;
    if (!pass) {
      return make_error(env, "stopped");
    }
    EngineOptions options;
    const ReadStatus status = read_engine_options(env, argv[0], &options);
    if (!status.ok()) {
      return error_of(env, status);
    }
    return start_engine(env, std::move(options));
  });
}

WEBHOOKS_NIF(nif_put_endpoint) {
  static_cast<void>(argc);
  return guard(env, [&] {
    EngineResource* resource = resource_of(env, argv[0]);
    if (resource == nullptr) {
      return enif_make_badarg(env);
    }
    const GatePass pass;
    if (!pass) {
      return make_error(env, "stopped");
    }
    constexpr int kTimeslicePercent = 10;
    enif_consume_timeslice(env, kTimeslicePercent);
    Endpoint endpoint;
    const ReadStatus read =
        read_endpoint(env, argv[1], resource->policy, &endpoint);
    if (!read.ok()) {
      return error_of(env, read);
    }
    const Status put = resource->engine->put_endpoint(std::move(endpoint));
    return put.ok() ? atoms::ok : make_error(env, put.error().reason);
  });
}

WEBHOOKS_NIF(nif_delete_endpoint) {
  static_cast<void>(argc);
  return guard(env, [&] {
    EngineResource* resource = resource_of(env, argv[0]);
    const auto id = as_binary(env, argv[1]);
    if (resource == nullptr || !id) {
      return enif_make_badarg(env);
    }
    // Of no endpoint; and a copy of it may take long.
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
    constexpr int kTimeslicePercent = 10;
    enif_consume_timeslice(env, kTimeslicePercent);
    return submit_list(env, argc, argv);
  });
}

WEBHOOKS_NIF(nif_run_once) {
  static_cast<void>(argc);
  return guard(env, [&] {
    EngineResource* resource = resource_of(env, argv[0]);
    const auto wait_ms = as_int64(env, argv[1]);
    if (resource == nullptr || !wait_ms || *wait_ms < 0) {
      return enif_make_badarg(env);
    }
    const GatePass pass;
    if (!pass) {
      return make_error(env, "stopped");
    }
    std::vector<Attempt> finished;
    const auto wait = static_cast<std::uint32_t>(
        std::min<std::int64_t>(*wait_ms, kMaxWaitMs));
    const Status status = resource->engine->run_once(wait, finished);
    if (!status.ok()) {
      return make_error(env, status.error().reason);
    }
    std::vector<ERL_NIF_TERM> terms;
    terms.reserve(finished.size());
    for (const Attempt& attempt : finished) {
      terms.push_back(attempt_term(env, attempt));
    }
    return make_ok(
        env, enif_make_list_from_array(env, terms.data(),
                                       static_cast<unsigned>(terms.size())));
  });
}

WEBHOOKS_NIF(nif_stats) {
  static_cast<void>(argc);
  return guard(env, [&] {
    EngineResource* resource = resource_of(env, argv[0]);
    if (resource == nullptr) {
      return enif_make_badarg(env);
    }
    return stats_term(env, resource->engine->stats());
  });
}

WEBHOOKS_NIF(nif_engine_stop) {
  static_cast<void>(argc);
  return guard(env, [&] {
    EngineResource* resource = resource_of(env, argv[0]);
    const auto drain_ms = as_int64(env, argv[1]);
    constexpr std::int64_t kDrainMsMax = 600'000;
    if (resource == nullptr || !drain_ms || *drain_ms < 0) {
      return enif_make_badarg(env);
    }
    const GatePass pass;
    if (!pass) {
      return make_error(env, "stopped");
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
    return make_ok(
        env, enif_make_list_from_array(env, ids.data(),
                                       static_cast<unsigned>(ids.size())));
  });
}

}  // namespace webhooks::nif
