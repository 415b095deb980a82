defmodule Plausible.Webhooks.Test.PageCase do
  @moduledoc false
  # The settings page on a real instance with Store.Ecto and a receiver on loopback.
  #
  #     use Plausible.Webhooks.Test.PageCase
  #
  #     test "...", context do
  #       context = start_page!(context)
  #       view = page!(context)
  #
  # Of `Plausible.Webhooks.Test.TestHost` the actors are: `owner`, `viewer`, `other`,
  # `nobody`.

  use ExUnit.CaseTemplate

  import Phoenix.ConnTest, only: [build_conn: 0]
  import Phoenix.LiveViewTest
  import Plausible.Webhooks.Test.Eventually

  @endpoint Demo.Web.Endpoint

  using options do
    quote do
      use Plausible.Webhooks.Test.EctoInstanceCase, unquote(options)

      import Phoenix.LiveViewTest
      import Plausible.Webhooks.Test.PageCase

      # LiveView tells of every event.
      @moduletag :capture_log
      @endpoint Demo.Web.Endpoint
    end
  end

  @doc "An instance that tells the page what happens."
  def start_page!(context, options \\ []) do
    defaults = [observers: [{Plausible.Webhooks.Updates, pubsub: Demo.PubSub}]]
    Plausible.Webhooks.Test.EctoInstanceCase.start!(context, Keyword.merge(defaults, options))
  end

  @doc "What `live_render` gives."
  def session(context, given \\ %{}) do
    Map.merge(
      %{
        "site_id" => 1,
        "domain" => "site1.example",
        "auth" => inspect(Demo.Web.Auth),
        "instance" => inspect(context.name),
        "pubsub" => inspect(Demo.PubSub),
        "actor" => "owner"
      },
      given
    )
  end

  @doc "The page, connected, once it has read everything."
  def page!(context, given \\ %{}) do
    options = [session: session(context, given)]
    {:ok, view, _html} = live_isolated(build_conn(), PlausibleWeb.Live.WebhookSettings, options)
    settled(view)
    view
  end

  @doc "The first answer, before anything is connected."
  def first_answer(context, given \\ %{}) do
    conn = Plug.Conn.put_private(build_conn(), :phoenix_endpoint, @endpoint)

    Phoenix.LiveView.Controller.live_render(conn, PlausibleWeb.Live.WebhookSettings,
      session: session(context, given)
    )
  end

  @doc "Waits until nothing is being loaded; what is shown then."
  def settled(view, timeout_ms \\ 10_000) do
    _html = render_async(view, timeout_ms)
    render(view)
  end

  @doc "Waits until the page shows it, coming by itself."
  def shows!(view, text) do
    eventually(fn -> render(view) =~ text end)
    render(view)
  end

  @doc "What a user clicks on."
  def click(view, selector) do
    view |> element(selector) |> render_click()
    settled(view)
  end

  def click(view, selector, text) do
    view |> element(selector, text) |> render_click()
    settled(view)
  end

  @doc "An event as a client could forge it."
  def forge(view, event, params), do: render_hook(view, event, params)

  @doc "The text in an element."
  def text_of(view, selector), do: view |> element(selector) |> render() |> plain()

  @doc "The text in a read-only field of lines, which Floki gives as it stands in the HTML."
  def code_of(view, selector), do: view |> text_of(selector) |> unescaped()

  @doc "HTML as text."
  def plain(html),
    do:
      html
      |> String.replace(~r/<[^>]*>/, " ")
      |> unescaped()
      |> String.replace(~r/\s+/, " ")
      |> String.trim()

  defp unescaped(text) do
    for {entity, char} <- [
          {"&lt;", "<"},
          {"&gt;", ">"},
          {"&quot;", "\""},
          {"&#39;", "'"},
          {"&amp;", "&"}
        ],
        reduce: text do
      text -> String.replace(text, entity, char)
    end
  end
end
