defmodule Demo.Web.Auth do
  @moduledoc false
  @behaviour PlausibleWeb.Live.WebhookSettings.Auth

  @impl true
  def actor(%{"actor" => name}, %{endpoint: endpoint}),
    do: Map.fetch(endpoint.config(:page).actors, name)

  def actor(_nobody, _socket), do: :error
end
