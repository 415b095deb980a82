defmodule Plausible.Ingestion.Persistor do
  @moduledoc false

  alias Plausible.ClickhouseEventV2

  def persist_event(%{clickhouse_event: event, clickhouse_session_attrs: attrs} = ingest_event) do
    with {:ok, session} <- Plausible.Session.CacheStore.on_event(event, attrs) do
      event = ClickhouseEventV2.merge_session(event, session)
      {:ok, _} = Plausible.Event.WriteBuffer.insert(event)
      {:ok, %{ingest_event | clickhouse_event: event}}
    end
  end
end
