defmodule PlausibleWeb.Live.WebhookSettings.NotFound do
  @moduledoc """
  Raised at the mount for whoever may not manage the site's webhooks: the answer is
  404, as for a site that does not exist.
  """
  defexception message: "not found", plug_status: 404
end
