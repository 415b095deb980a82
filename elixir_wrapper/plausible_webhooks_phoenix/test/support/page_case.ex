defmodule Plausible.Webhooks.Test.PageCase do
  @moduledoc false
  # The settings page on a real instance with Store.Ecto and a receiver on loopback.
  #
  #     use Plausible.Webhooks.Test.PageCase
  #
  #     test "...", context do
  #       context = start_page!(context)
  #       view = page!(context, "/new")
  #
  # Of `Plausible.Webhooks.Test.TestHost` the actors are: `owner`, `viewer`, `other`,
  # `nobody`.

  use ExUnit.CaseTemplate

  import Phoenix.ConnTest, only: [build_conn: 0]
  import Phoenix.LiveViewTest
  import Plausible.Webhooks.Test.Eventually

  alias Plausible.Webhooks.Accept.Outbox
  alias Plausible.Webhooks.Store
  alias Plausible.Webhooks.Test.{EctoInstanceCase, InstanceCase}
  alias PlausibleWeb.Live.WebhookSettings

  @endpoint Demo.Web.Endpoint
  @path "/sites/1/webhooks"

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
    EctoInstanceCase.start!(context, Keyword.merge(defaults, options))
  end

  @doc "What `WebhookSettings.live/2` gives to the view of an address."
  def session(context, address, given \\ %{}) do
    uri = URI.parse(address)

    Map.merge(
      %{
        "site_id" => 1,
        "auth" => inspect(Demo.Web.Auth),
        "instance" => inspect(context.name),
        "pubsub" => inspect(Demo.PubSub),
        "actor" => "owner",
        "path" => @path,
        "view" => String.split(uri.path || "", "/", trim: true),
        "query" => URI.decode_query(uri.query || "")
      },
      given
    )
  end

  @doc "The view of an address below the page's, connected, once it has read everything."
  def page!(context, address \\ "", given \\ %{}) do
    session = session(context, address, given)
    view = WebhookSettings.view(session["view"])
    {:ok, view, _html} = live_isolated(build_conn(), view, session: session)
    settled(view)
    view
  end

  @doc "The view to which this one has led."
  def next!(context, view), do: page!(context, left!(view))

  @doc "The address below the page's to which this view has led."
  def left!(view) do
    {to, _flash} = assert_redirect(view, 10_000)
    String.replace_prefix(to, @path, "")
  end

  @doc "The address of a link, below the page's."
  def link_of(view, selector) do
    [_all, href] = Regex.run(~r/href="([^"]*)"/, view |> element(selector) |> render())
    href |> unescaped() |> String.replace_prefix(@path, "")
  end

  @doc "The host's answer to a request, before anything is connected."
  def get(context, address, actor \\ "owner") do
    page = %{instance: context.name, pubsub: Demo.PubSub, actors: actors()}
    conn = Plug.Conn.put_private(build_conn(), :demo_page, page)
    Phoenix.ConnTest.dispatch(conn, @endpoint, :get, @path <> address, %{"as" => actor})
  end

  defp actors, do: Map.new(~w(owner viewer other nobody)a, &{Atom.to_string(&1), &1})

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

  @doc "What a user submits, or changes."
  def submit(view, form, params \\ %{}) do
    view |> form(form, params) |> render_submit()
    settled(view)
  end

  def change(view, form, params) do
    view |> form(form, params) |> render_change()
    settled(view)
  end

  @doc "An event as a client could forge it."
  def forge(view, event, params), do: render_hook(view, event, params)

  @doc "The text in an element."
  def text_of(view, selector), do: view |> element(selector) |> render() |> plain()

  @doc "The message that is shown."
  def message(view), do: text_of(view, "#webhook-message")

  @doc "HTML as text."
  def plain(html) do
    html
    |> String.replace(~r/<[^>]*>/, " ")
    |> unescaped()
    |> String.replace(~r/\s+/, " ")
    |> String.trim()
  end

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

  @doc "A delivery in the log that no engine sends."
  def accept!(context, webhook, attributes) do
    delivery = InstanceCase.delivery(webhook, attributes)
    :ok = Store.accept(context.instance, [delivery])
    delivery
  end

  @doc "A delivery that has been sent, with that many attempts."
  def sent!(context, webhook, attempts \\ 1) do
    delivery = InstanceCase.delivery(webhook)
    Outbox.push(context.instance, [delivery])

    eventually(fn ->
      match?(
        {:ok, %{attempts: ^attempts}},
        Plausible.Webhooks.delivery(context.name, :owner, 1, delivery.id)
      )
    end)

    delivery
  end
end
