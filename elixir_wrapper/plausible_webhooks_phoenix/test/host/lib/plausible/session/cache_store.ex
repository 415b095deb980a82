defmodule Plausible.Session.CacheStore do
  @moduledoc false
  # The session of a visitor; an engagement without one is none of a visit.
  use Agent

  def start_link(_opts) do
    Agent.start_link(fn -> :ets.new(__MODULE__, [:named_table, :public]) end, name: __MODULE__)
  end

  def on_event(event, attrs) do
    key = {event.site_id, event.user_id}

    case :ets.lookup(__MODULE__, key) do
      [{_key, session}] -> {:ok, session}
      [] when event.name == "engagement" -> {:error, :no_session_for_engagement}
      [] -> {:ok, begin_session(key, attrs)}
    end
  end

  defp begin_session(key, attrs) do
    session = Map.put(attrs, :session_id, :rand.uniform(9_223_372_036_854_775_807))
    :ets.insert(__MODULE__, {key, session})
    session
  end
end
