defmodule Plausible.Mailer do
  @moduledoc false
  # Keeps what was sent.
  use Agent

  def start_link(_opts), do: Agent.start_link(fn -> [] end, name: __MODULE__)
  def send(email), do: Agent.update(__MODULE__, &[email | &1])
  def sent, do: Agent.get(__MODULE__, &Enum.reverse/1)
end

defmodule PlausibleWeb.Email do
  @moduledoc false

  def base_email(%{layout: _layout}),
    do: %{from: "plausible@localhost", to: nil, subject: nil, text_body: nil, html_body: nil}

  def spike_notification(to, site, stats, link) do
    %{base_email(%{layout: nil}) | to: to, subject: "Traffic spike on #{site.domain}"}
    |> Map.put(:text_body, "#{stats.current_visitors} visitors #{link}")
  end

  def drop_notification(to, site, current_visitors, link) do
    %{base_email(%{layout: nil}) | to: to, subject: "Traffic drop on #{site.domain}"}
    |> Map.put(:text_body, "#{current_visitors} visitors #{link}")
  end
end
