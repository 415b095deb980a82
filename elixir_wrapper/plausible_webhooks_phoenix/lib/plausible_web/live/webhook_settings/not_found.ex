defmodule PlausibleWeb.Live.WebhookSettings.NotFound do
  @moduledoc """
  Raised at the mount when the actor may not manage the site's webhooks, or when the address
  names nothing of this site. The response is a 404, as for a site that does not exist.
  """
  defexception message: "not found", plug_status: 404
end

defmodule PlausibleWeb.Live.WebhookSettings.Unavailable do
  @moduledoc false
  # Raised at the mount while the instance or the database does not answer.
  defexception message: "webhooks are not available", plug_status: 503
end
