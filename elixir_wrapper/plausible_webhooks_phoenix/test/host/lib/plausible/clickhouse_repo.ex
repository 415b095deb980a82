defmodule Plausible.ClickhouseRepo do
  @moduledoc false
  # Of the schema `clickhouse`, see priv/ingest_repo.
  use Ecto.Repo, otp_app: :plausible, adapter: Ecto.Adapters.Postgres

  @impl true
  def init(_context, config) do
    {:ok,
     Keyword.put(
       config,
       :after_connect,
       {Postgrex, :query!, ["SET search_path TO clickhouse", []]}
     )}
  end
end
