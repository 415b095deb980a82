defmodule PlausibleWeb.Live.WebhookSettings.NotFound do
  @moduledoc """
  Raised at the mount when the actor may not manage the site's webhooks. The response is a
  404, as for a site that does not exist.
  """
  defexception message: "not found", plug_status: 404
end
