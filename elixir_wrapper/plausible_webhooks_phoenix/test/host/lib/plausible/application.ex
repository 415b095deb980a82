defmodule Plausible.Application do
  @moduledoc false

  use Application

  def start(_type, _args) do
    endpoint = PlausibleWeb.Endpoint

    children =
      [
        Plausible.Repo,
        Plausible.ClickhouseRepo,
        Supervisor.child_spec(Plausible.Session.CacheStore, id: Plausible.Session.CacheStore),
        Supervisor.child_spec(Plausible.Event.WriteBuffer, id: Plausible.Event.WriteBuffer),
        {Plausible.RateLimit, clean_period: :timer.minutes(10)},
        Plausible.Mailer,
        {Phoenix.PubSub, name: Plausible.PubSub},
        endpoint
      ]
      |> List.flatten()
      |> Enum.reject(&is_nil/1)

    opts = [strategy: :one_for_one, name: Plausible.Supervisor]

    Supervisor.start_link(children, opts)
  end
end
