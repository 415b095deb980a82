defmodule Plausible.Webhooks.Options do
  # Not an alias: this module would then depend on the one that starts everything.
  @default_name :"Elixir.Plausible.Webhooks"
  @hours 3_600_000
  @days 24 * @hours

  # {key, default, check, meaning}. The checks and the documentation come from this one table,
  # so they agree.
  @limits [
    {:retry_delays_ms, [10_000, 600_000, 4 * @hours], :delays,
     "delay before each retry, at most 12 of them, each up to 7 days"},
    {:jitter_percent, 20, {0, 100}, "spread of every delay, both ways"},
    {:park_after_ms, 60_000, {0, @days},
     "a longer wait leaves the engine and is kept in the store"},
    {:retry_after_max_ms, 6 * @hours, {0, 7 * @days}, "the longest `Retry-After` that is obeyed"},
    {:timeout_ms, 15_000, {100, 120_000}, "the whole attempt, DNS included"},
    {:connect_timeout_ms, 5_000, {100, 120_000}, "DNS, connect and TLS of an attempt"},
    {:response_header_bytes_max, 65_536, {1_024, 1_048_576},
     "an answer with larger headers is refused"},
    {:response_body_bytes_max, 16_384, {0, 1_048_576}, "bytes of an answer that are kept"},
    {:answer_bytes_per_day, 268_435_456, {0, 68_719_476_736},
     "bytes a day of the answers to a site's webhooks that this node keeps in the log; an " <>
       "answer above this rate is left out"},
    {:lane_in_flight_max, 8, {1, 1_024}, "requests at the same time to one webhook"},
    {:lane_rate_per_s, 50, {1, 100_000}, "requests per second to one webhook"},
    {:destination_in_flight_max, 64, {1, 4_096},
     "requests at the same time to one destination, over all webhooks"},
    {:destination_rate_per_s, 200, {1, 1_000_000}, "requests per second to one destination"},
    {:in_flight_max, 4_096, {1, 65_536}, "requests at the same time, over all webhooks"},
    {:descriptors_max, 0, {0, 10_000_000},
     "sockets that the engine may hold, half of them in flight, half idle; " <>
       "0: half of what the process may open (`ulimit -n`)"},
    {:circuit_failures, 5, {0, 1_000},
     "after this many failures in a row, a webhook gets one request at a time; 0: never"},
    {:waiting_max, 100_000, {1, 10_000_000}, "deliveries waiting in the engine"},
    {:waiting_bytes_max, 134_217_728, {1_048_576, 4_294_967_295},
     "their bodies, in bytes; what does not fit stays in the store"},
    {:lane_waiting_bytes_max, 8_388_608, {1_048_576, 4_294_967_295},
     "bodies of one webhook waiting in the engine, in bytes"},
    {:outbox_max, 10_000, {1, 10_000_000},
     "deliveries waiting to be committed; more are dropped. One site may have at most four " <>
       "times as many waiting as are still free"},
    {:outbox_bytes_max, 67_108_864, {262_144, 68_719_476_736},
     "bodies waiting to be committed, in bytes; more are dropped"},
    {:deliveries_per_event_max, 1_000, {1, 100_000},
     "deliveries that one event may cause, over its goals and their webhooks; more are dropped"},
    {:webhooks_per_site_max, 20, {1, 1_000}, "webhooks of one site"},
    {:tests_per_minute, 10, {1, 1_000}, "test deliveries of one site"},
    {:recover_max, 10_000, {1, 1_000_000}, "deliveries that one call of `recover/5` sends again"},
    {:disable_after_ms, 5 * @days, {60_000, 365 * @days},
     "a webhook that has only failed for this long is disabled"},
    {:retention_ms, 30 * @days, {60_000, 3_650 * @days}, "how long finished deliveries are kept"},
    {:drain_ms, 5_000, {0, 600_000},
     "how long requests in flight may take to finish when the instance stops"},
    {:lease_ms, 30_000, {1_000, 600_000},
     "after this time without a sign of life, other nodes take over a node's deliveries"},
    {:sweep_interval_ms, 1_000, {10, 60_000}, "how often parked deliveries are looked for"},
    {:prune_interval_ms, 60_000, {10, @days}, "how often old deliveries are deleted"}
  ]

  # The keyword lists of two parts: {low, high}, or that or :infinity.
  @parts %{
    directory: %{
      refresh_ms: {10, @days},
      sites_per_refresh: {0, 1_000_000},
      concurrency: {1, 1_000},
      load_timeout_ms: {10, 600_000},
      start_wait_ms: {0, 600_000},
      dedup_entries_max: {1, 100_000_000}
    },
    traffic: %{
      tick_ms: {10, @days, :infinity},
      lease_ms: {10, @days},
      concurrency: {1, 1_000},
      site_timeout_ms: {10, 600_000},
      round_timeout_ms: {10, @days}
    }
  }

  @limit_docs Enum.map_join(@limits, "\n", fn {key, default, _check, text} ->
                "    * `:#{key}` - #{text}; default `#{inspect(default)}`"
              end)

  @moduledoc """
  The options of an instance, checked before anything starts.

      iex> Plausible.Webhooks.Options.new([])
      {:error, {:invalid_option, :store, "is required"}}

  Required:

    * `:store` - `{module, keyword}`, a `Plausible.Webhooks.Store`.
    * `:host` - `{module, argument}`, a `Plausible.Webhooks.Host`.

  What to send and to whom:

    * `:name` - the name of the instance, an atom; default `Plausible.Webhooks`. A second
      instance needs another name and another database.
    * `:vault` - what encrypts the secrets in the store: a list of keys, newest first (32 bytes
      each, raw or in Base64); `{:file, path}`, a key file that is created with its folder if
      it does not exist and the database holds nothing encrypted; or a
      `Plausible.Webhooks.Vault`. Default `nil`, for a store that has its own.
    * `:policy` - which destinations are allowed: `%{https_only: true, allow: []}` or a part
      of it. `allow` lists destinations that are allowed besides public ones, up to 256:
      `"10.0.0.5:8080"`, `"[fd00::5]:8080"`, `"n8n:5678"` or `"10.1.0.0/16:*"`. `*` is any
      port. Without a port it is 80 and 443. A special range (loopback, link-local, cloud
      metadata) is allowed only by an entry inside it, and a local name (`n8n`,
      `app.internal`) only by an entry with that name.
    * `:ca_file` - a PEM file of certificate authorities, `nil` for the system's.
    * `:dns_servers` - name servers, `"address:port"` separated by commas; `nil` for the
      system's.
    * `:user_agent` - `nil` for `Plausible-Webhooks/<version>`.
    * `:observers` - a list of `{module, argument}`, see `Plausible.Webhooks.Observer`.
    * `:cluster` - how other nodes learn of changes: `{module, keyword}`, see
      `Plausible.Webhooks.Cluster`; default `nil`.
    * `:directory` - limits of the directory of subscriptions, a keyword list:
      #{@parts.directory |> Map.keys() |> Enum.map_join(", ", &"`:#{&1}`")}
      (`Plausible.Webhooks.Ingest.Directory`).
    * `:traffic` - limits of the traffic evaluator, likewise:
      #{@parts.traffic |> Map.keys() |> Enum.map_join(", ", &"`:#{&1}`")}
      (`Plausible.Webhooks.Ingest.Traffic.Evaluator`). With `false`, this node does not
      evaluate traffic.

  Limits, with their units in the name:

  #{@limit_docs}
  """

  alias __MODULE__
  alias Plausible.Webhooks.{Cluster, Host, Native, Store, Vault}

  @typedoc "The checked options."
  @type t :: %Options{}
  @typedoc "The option that is wrong, and why."
  @type error :: {:invalid_option, atom(), String.t()}

  defstruct [
              :store,
              :host,
              name: @default_name,
              vault: nil,
              policy: %{https_only: true, allow: []},
              ca_file: nil,
              dns_servers: nil,
              user_agent: nil,
              observers: [],
              cluster: nil,
              directory: [],
              traffic: []
            ] ++ Enum.map(@limits, fn {key, default, _check, _text} -> {key, default} end)

  @doc "Checks every option; the error names the first one that is wrong."
  @spec new(keyword()) :: {:ok, t()} | {:error, error()}
  def new(options) do
    if Keyword.keyword?(options) do
      check_all(options)
    else
      {:error, {:invalid_option, :options, "must be a keyword list"}}
    end
  end

  defp check_all(options) do
    with :ok <- required(options),
         {:ok, checked} <- each(options, %{}),
         :ok <- together(struct!(Options, checked)),
         do: {:ok, named(struct!(Options, checked))}
  end

  # Two instances with a file each must not meet in the name of a process.
  defp named(%Options{name: name, store: {Store.SQLite, options}} = all)
       when name != @default_name do
    options = Keyword.put_new(options, :name, Module.concat(name, "SQLite"))
    %{all | store: {Store.SQLite, options}}
  end

  defp named(options), do: options

  defp required(options) do
    case Enum.find([:store, :host], &(not Keyword.has_key?(options, &1))) do
      nil -> :ok
      key -> {:error, {:invalid_option, key, "is required"}}
    end
  end

  defp each([], checked), do: {:ok, checked}

  defp each([{key, _value} | _rest], checked) when is_map_key(checked, key),
    do: {:error, {:invalid_option, key, "is given twice"}}

  defp each([{key, value} | rest], checked) do
    case check(key, value) do
      {:ok, value} -> each(rest, Map.put(checked, key, value))
      {:error, text} -> {:error, {:invalid_option, key, text}}
    end
  end

  # Options that depend on each other.
  defp together(%Options{connect_timeout_ms: connect, timeout_ms: total}) when connect > total,
    do: {:error, {:invalid_option, :connect_timeout_ms, "must not be longer than timeout_ms"}}

  defp together(_options), do: :ok

  defp check(:name, name) when is_atom(name) and name not in [nil, true, false], do: {:ok, name}
  defp check(:name, _other), do: {:error, "must be an atom"}

  defp check(:store, {module, options}) when is_atom(module),
    do: implementation(module, options, Store, "not a store")

  defp check(:store, _other), do: {:error, "must be {module, keyword list}"}

  defp check(:host, {module, argument}) when is_atom(module) do
    case missing(module, Host) do
      nil -> {:ok, {module, argument}}
      missing -> {:error, "#{inspect(module)} is not a host: #{missing}"}
    end
  end

  defp check(:host, _other), do: {:error, "must be {module, argument}"}

  defp check(:vault, vault), do: vault(vault)
  defp check(:policy, policy), do: policy(policy)
  defp check(:observers, observers), do: observers(observers)

  defp check(key, nil) when key in [:ca_file, :dns_servers, :user_agent, :cluster],
    do: {:ok, nil}

  defp check(:dns_servers, text) when is_binary(text) do
    if text =~ ~r/\A[0-9a-fA-F.:\[\]%,]{1,1000}\z/,
      do: {:ok, text},
      else: {:error, "must list addresses, with or without a port"}
  end

  defp check(:ca_file, path) when is_binary(path) do
    case File.regular?(path) and File.read(path) do
      {:ok, text} ->
        if text =~ ~r/-----BEGIN (TRUSTED |X509 )?CERTIFICATE-----/,
          do: {:ok, path},
          else: {:error, "has no certificate"}

      _no_file ->
        {:error, "is not a file that can be read"}
    end
  end

  defp check(:user_agent, text) when is_binary(text) do
    if text =~ ~r/\A[\x21-\x7e][\x20-\x7e]{0,199}\z/,
      do: {:ok, text},
      else: {:error, "must be 1 to 200 printable ASCII characters"}
  end

  defp check(key, _other) when key in [:ca_file, :dns_servers, :user_agent],
    do: {:error, "must be a string or nil"}

  defp check(:cluster, {module, options}) when is_atom(module),
    do: implementation(module, options, Cluster, "no cluster")

  defp check(:cluster, _other), do: {:error, "must be {module, keyword list} or nil"}

  defp check(:traffic, false), do: {:ok, false}

  defp check(key, options) when key in [:directory, :traffic] do
    if Keyword.keyword?(options),
      do: parts(options, Map.fetch!(@parts, key)),
      else: {:error, "must be a keyword list"}
  end

  for {key, _default, rule, _text} <- @limits do
    defp check(unquote(key), value), do: limit(unquote(Macro.escape(rule)), value)
  end

  defp check(_unknown, _value), do: {:error, "is not an option"}

  defp parts(options, known) do
    Enum.find_value(options, {:ok, options}, fn {key, value} ->
      case is_map_key(known, key) and limit(known[key], value) do
        false -> {:error, "#{key} is not a part of it"}
        {:error, text} -> {:error, "#{key} #{text}"}
        {:ok, _value} -> nil
      end
    end)
  end

  defp limit({_low, _high, also}, also), do: {:ok, also}

  defp limit({low, high, also}, value) do
    with {:error, text} <- limit({low, high}, value), do: {:error, "#{text}, or #{inspect(also)}"}
  end

  defp limit({low, high}, value) when is_integer(value) and value >= low and value <= high,
    do: {:ok, value}

  defp limit({low, high}, _value), do: {:error, "must be an integer from #{low} to #{high}"}

  defp limit(:delays, delays) when is_list(delays) and length(delays) <= 12 do
    if Enum.all?(delays, &(is_integer(&1) and &1 > 0 and &1 <= 7 * @days)),
      do: {:ok, delays},
      else: {:error, "must hold integers from 1 to #{7 * @days}"}
  end

  defp limit(:delays, _other), do: {:error, "must be a list of at most 12 delays"}

  defp vault(nil), do: {:ok, nil}
  defp vault(%Vault{} = vault), do: {:ok, vault}
  defp vault(keys) when is_list(keys), do: vault_of(Vault.new(keys))

  # The store makes a missing file, unless it holds what the file has encrypted.
  defp vault({:file, path}) when is_binary(path) do
    case Vault.load_file(path) do
      {:error, {:key_file, _path, :enoent}} -> {:ok, {:file, path}}
      other -> vault_of(other)
    end
  end

  defp vault(_other), do: {:error, "must be a list of keys, {:file, path} or a vault"}

  defp vault_of({:ok, vault}), do: {:ok, vault}
  defp vault_of({:error, :no_keys}), do: {:error, "holds no key"}

  defp vault_of({:error, {:invalid_key, position}}),
    do: {:error, "key #{position} is not 32 bytes, raw or in Base64"}

  defp vault_of({:error, {:ambiguous_keys, position}}),
    do: {:error, "key #{position} has the same id as another key, generate a new one"}

  defp vault_of({:error, {:key_file, path, reason}}),
    do: {:error, "the key file #{path} cannot be used: #{inspect(reason)}"}

  defp policy(policy) when is_list(policy) do
    if Keyword.keyword?(policy),
      do: policy(Map.new(policy)),
      else: {:error, "must be a map or a keyword list"}
  end

  defp policy(policy) when is_map(policy) do
    defaults = %Options{}.policy

    case Enum.find_value(policy, &wrong_part/1) do
      nil -> {:ok, Map.merge(defaults, policy)}
      wrong -> {:error, wrong}
    end
  end

  defp policy(_other), do: {:error, "must be a map or a keyword list"}

  defp wrong_part({:https_only, value}) when is_boolean(value), do: nil
  defp wrong_part({:https_only, _value}), do: "https_only must be true or false"

  defp wrong_part({:allow, entries}) do
    wrong = wrong_allow(entries)
    wrong && "allow: #{wrong}"
  end

  defp wrong_part({key, _value}), do: "#{inspect(key)} is not a part of it"

  @doc """
  Returns what is wrong with the `allow` list of a policy, `nil` if nothing is.
  """
  @spec wrong_allow(term()) :: String.t() | nil
  def wrong_allow(entries) do
    if is_list(entries) and not List.improper?(entries) and Enum.all?(entries, &is_binary/1),
      do: Enum.find_value(entries, &wrong_entry/1) || wrong_entries(entries),
      else: "must be a list of strings"
  end

  # The native policy judges URLs, so it also judges what goes into it.
  defp wrong_entry(entry) do
    case judge([entry]) do
      :invalid_allow ->
        "#{inspect(entry)} is not address:port, name:port or CIDR:port"

      :allows_everything ->
        "#{inspect(entry)} would allow every address: name the networks"

      _other ->
        nil
    end
  end

  defp wrong_entries(entries) do
    if judge(entries) == :too_many_entries, do: "has more than 256 entries"
  end

  defp judge(allow) do
    {_ok_or_error, reason} = Native.check_url("https://example.com/", %{allow: allow})
    reason
  end

  defp observers(observers) when is_list(observers) do
    wrong = Enum.find(observers, &(not observer?(&1)))

    if wrong,
      do: {:error, "#{inspect(wrong)} is not {module, argument} of an observer"},
      else: {:ok, observers}
  end

  defp observers(_other), do: {:error, "must be a list of {module, argument}"}

  defp observer?({module, _argument}) when is_atom(module),
    do: implements?(module, :handle_event, 4)

  defp observer?(_other), do: false

  defp implements?(module, function, arity),
    do: Code.ensure_loaded?(module) and function_exported?(module, function, arity)

  defp implementation(module, options, behaviour, is_not) do
    cond do
      not Keyword.keyword?(options) ->
        {:error, "must be {module, keyword list}"}

      missing = missing(module, behaviour) ->
        {:error, "#{inspect(module)} is #{is_not}: #{missing}"}

      true ->
        {:ok, {module, options}}
    end
  end

  defp missing(module, behaviour) do
    needed = behaviour.behaviour_info(:callbacks) -- behaviour.behaviour_info(:optional_callbacks)

    case Enum.reject(needed, fn {function, arity} -> implements?(module, function, arity) end) do
      [] -> nil
      [{function, arity} | _] -> "#{function}/#{arity} is missing"
    end
  end

  defimpl Inspect do
    # What the store and the cluster were given (a password, perhaps) must not end
    # up in a crash report.
    def inspect(options, opts) do
      store = options.store && elem(options.store, 0)
      cluster = options.cluster && elem(options.cluster, 0)
      Inspect.Any.inspect(%{options | store: store, cluster: cluster}, opts)
    end
  end
end
