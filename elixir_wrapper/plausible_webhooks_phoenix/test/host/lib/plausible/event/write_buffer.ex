defmodule Plausible.Event.WriteBuffer do
  @moduledoc false
  # Events on their way into the events table.
  use GenServer

  @flush_ms 50

  def start_link(_opts), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  def insert(event) do
    GenServer.cast(__MODULE__, {:insert, event})
    {:ok, event}
  end

  def flush, do: GenServer.call(__MODULE__, :flush)

  @impl true
  def init(events) do
    Process.flag(:trap_exit, true)
    Process.send_after(self(), :flush, @flush_ms)
    {:ok, events}
  end

  @impl true
  def handle_cast({:insert, event}, events), do: {:noreply, [event | events]}

  @impl true
  def handle_call(:flush, _from, events), do: {:reply, write(events), []}

  @impl true
  def handle_info(:flush, events) do
    Process.send_after(self(), :flush, @flush_ms)
    write(events)
    {:noreply, []}
  end

  @impl true
  def terminate(_reason, events), do: write(events)

  defp write(events) do
    events
    |> Enum.map(&(&1 |> Map.from_struct() |> Map.delete(:__meta__)))
    |> Enum.chunk_every(500)
    |> Enum.each(&Plausible.ClickhouseRepo.insert_all("events_v2", &1))
  end
end
