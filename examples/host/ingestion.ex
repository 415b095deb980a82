defmodule Demo.Ingestion do
  @moduledoc """
  The ingestion of the small host: `POST /event` takes one event as `Demo.Events` reads it
  and answers 202, or 400 with the reason.

      {Demo.Ingestion, host: MyApp.Sites, webhooks: Plausible.Webhooks, port: 4001}

  It listens on a loopback address; `Plausible.Webhooks.Local.Http.port/1` returns the port.
  """

  def child_spec(options) do
    handle = fn
      "/event", _headers, body -> post(options, body)
      _path, _headers, _body -> {404, [], "not found"}
    end

    options
    |> Keyword.take([:name, :port])
    |> Keyword.put(:handle, handle)
    |> Plausible.Webhooks.Local.Http.child_spec()
  end

  defp post(options, body) do
    case Demo.Events.parse(body, &Demo.Host.site_by_domain(options[:host], &1)) do
      {:ok, event} ->
        keep(options[:host], options[:webhooks], event)
        {202, [], "ok"}

      {:error, message} ->
        {400, [], message}
    end
  end

  @doc "Counts the visitor of an event and passes the event to the webhooks."
  @spec keep(atom(), atom(), map()) :: :ok
  def keep(host, webhooks, event) do
    Demo.Host.count(host, event)
    Plausible.Webhooks.events_buffered(webhooks, [event])
  end
end
