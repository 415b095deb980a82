defmodule Plausible.Webhooks.Store.Keeper do
  @moduledoc false
  # Opens the store. If the store cannot be opened when the instance starts, the start fails
  # with the store's reason. A store that only cannot be reached gets some time first: a
  # database that is just restarting must not keep the application from starting. Later, when
  # the store's own process has died, the Keeper tries again and again. Meanwhile the queues
  # keep what arrives. Rejected: restarting the instance, which would lose the queues.

  use GenServer

  alias Plausible.Webhooks.Runtime.Instance
  alias Plausible.Webhooks.Store

  require Logger

  @retry_ms 500
  # One line in the log for so many tries.
  @log_every 20
  @start_wait_ms 10_000

  def start_link(name),
    do: GenServer.start_link(__MODULE__, name, name: Instance.process(name, :store))

  @impl true
  def init(name) do
    instance = Instance.fetch!(name)

    if Store.opened?(instance) do
      case open(instance) do
        :ok -> {:ok, {name, 0}}
        {:error, reason} -> {:ok, later({name, 0}, reason)}
      end
    else
      first_time(instance, System.monotonic_time(:millisecond) + @start_wait_ms)
    end
  end

  defp first_time(instance, deadline) do
    case open(instance) do
      :ok ->
        {:ok, {instance.name, 0}}

      {:error, reason} ->
        if reason in [:connection_lost, :queue_timeout, :timeout] and
             System.monotonic_time(:millisecond) < deadline do
          Process.sleep(@retry_ms)
          first_time(instance, deadline)
        else
          {:stop, {:store, reason}}
        end
    end
  end

  @impl true
  def handle_info(:open, {name, _failures} = state) do
    case open(Instance.fetch!(name)) do
      :ok -> {:noreply, {name, 0}}
      {:error, reason} -> {:noreply, later(state, reason)}
    end
  end

  def handle_info(_other, state), do: {:noreply, state}

  defp open(%Instance{options: %{store: {module, options}, vault: vault} = ours} = instance) do
    options = if vault, do: Keyword.put(options, :vault, vault), else: options

    options =
      Keyword.merge(
        [webhooks_per_site_max: ours.webhooks_per_site_max, wait_ms_max: wait(ours)],
        options
      )

    with {:ok, handle} <- module.init(options) do
      Store.opened(instance, module, handle)
    end
  end

  # The longest that a delivery waits for an attempt.
  defp wait(options) do
    longest = Enum.max([0 | options.retry_delays_ms])
    max(div(longest * (100 + options.jitter_percent), 100), options.retry_after_max_ms)
  end

  defp later({name, failures}, reason) do
    if rem(failures, @log_every) == 0,
      do: Logger.warning("webhooks: the store cannot be opened again: #{inspect(reason)}")

    Process.send_after(self(), :open, @retry_ms)
    {name, failures + 1}
  end
end
