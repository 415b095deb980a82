defmodule Plausible.RateLimit do
  @moduledoc false
  # So many per window; a window begins with every multiple of its length.
  use GenServer

  def start_link(opts), do: GenServer.start_link(__MODULE__, opts)

  def check_rate(table \\ __MODULE__, key, scale, limit, increment \\ 1) do
    window = div(System.system_time(:millisecond), scale)
    count = :ets.update_counter(table, {key, window}, increment, {{key, window}, 0})
    if count <= limit, do: {:allow, count}, else: {:deny, limit}
  end

  @impl true
  def init(_opts) do
    :ets.new(__MODULE__, [:named_table, :public])
    {:ok, nil}
  end
end
