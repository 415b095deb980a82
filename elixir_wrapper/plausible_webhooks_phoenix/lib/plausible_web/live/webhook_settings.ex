defmodule PlausibleWeb.Live.WebhookSettings do
  @moduledoc """
  The settings pages of a site's webhooks, for LiveView 0.20 to 1.1. Every view has an
  address below the one at which the host mounts the pages:

  | address | view |
  |---|---|
  | the mount point | the webhooks |
  | `/new`, `/:id/edit` | the form |
  | `/:id` | one webhook |
  | `/deliveries?filters` | the log |
  | `/deliveries/:id` | one delivery |

  The host has one wildcard route, whose segments are called `view`, and one template:

      get "/sites/:id/webhooks/*view", MyApp.SiteController, :webhooks

      <%= PlausibleWeb.Live.WebhookSettings.live(@conn, %{
        "site_id" => @site.id,
        "auth" => inspect(MyApp.WebhooksAuth),
        "pubsub" => inspect(MyApp.PubSub)
      }) %>

  Each view is a LiveView of its own, mounted from its address. Links between views are
  ordinary links, so a view can be opened in a tab, copied and reloaded.

  The session, which is signed:

    * `"site_id"` - required.
    * `"auth"` - required: the name of a module with the behaviour
      `PlausibleWeb.Live.WebhookSettings.Auth`, which returns the actor. It gets the whole
      session.
    * `"instance"` - the name of the instance, default `Plausible.Webhooks`.
    * `"pubsub"` - the PubSub of the observer `Plausible.Webhooks.Updates`. Without it the
      page reads everything again every few seconds.
    * `"script"` - `"page"` (the default): the page brings its script inline. `"host"`: the
      host loads `priv/static/webhooks_page.js` of this package. The script copies, counts
      down, keeps the address of a filtered log, and asks before unsaved edits are left.
    * `"base_url"` - the host's origin, by default that of its endpoint. Test addresses begin with
      it (`PlausibleWeb.WebhookTestAddress`).
    * `"nonce"` - the nonce of the inline script, for a host with a
      Content-Security-Policy.

  Modules are named as `inspect/1` prints them.

  ## Permissions

  Users without `:manage` (`c:Plausible.Webhooks.Host.can?/4`) get a 404
  (`PlausibleWeb.Live.WebhookSettings.NotFound`), and so do the ids of another site. The page
  asks at the mount, connected and not, and again on every event and every update; each
  function of `Plausible.Webhooks` asks too. When the permission is lost, the page reloads,
  and the host answers.

  ## What the host provides

  Tailwind CSS that scans this package for classes, with `dark` as a class. The page has no
  hook and no inline style, so it works under a strict Content-Security-Policy.
  """

  import Phoenix.Component, only: [sigil_H: 2]
  import PlausibleWeb.Live.WebhookSettings.Components, only: [notice: 1]

  alias PlausibleWeb.WebhookTestAddress
  alias __MODULE__.{Deliveries, Delivery, Form, List, NotFound, Unavailable, Webhook}

  @doc "Renders the view of the request's address. `conn` has passed the wildcard route."
  @spec live(Plug.Conn.t(), %{String.t() => term()}) :: Phoenix.LiveView.Rendered.t()
  def live(conn, session) do
    conn = Plug.Conn.fetch_query_params(conn)
    segments = Elixir.List.wrap(conn.path_params["view"])

    address = %{
      "path" => path(conn, segments),
      "view" => segments,
      "query" => conn.query_params,
      "test_address" => WebhookTestAddress.base(conn, session["base_url"])
    }

    view = view(segments) || raise NotFound
    Phoenix.Component.live_render(conn, view, session: Map.merge(session, address))
  rescue
    Unavailable -> unavailable(%{})
  end

  # The mount point: the address without the segments of the view, as the browser sent it.
  defp path(conn, segments) do
    given = String.split(conn.request_path, "/", trim: true)
    "/" <> Enum.join(Enum.drop(given, -length(segments)), "/")
  end

  @doc "The LiveView of the segments behind the mount point, or `nil`."
  @spec view([String.t()]) :: module() | nil
  def view([]), do: List
  def view(["new"]), do: Form
  def view(["deliveries"]), do: Deliveries
  def view(["deliveries", _id]), do: Delivery
  def view([_id]), do: Webhook
  def view([_id, "edit"]), do: Form
  def view(_other), do: nil

  # The host's page stays whole while webhooks are not running.
  defp unavailable(assigns) do
    ~H"""
    <.notice theme={:yellow} role="alert">
      Webhooks cannot be shown at the moment. Reload the page later.
    </.notice>
    """
  end
end
