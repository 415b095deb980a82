defmodule PlausibleWeb.WebhookTestAddress do
  @moduledoc """
  A plug for the host's endpoint, in front of `Plug.Parsers`, which would read the body:

      plug PlausibleWeb.WebhookTestAddress

  It serves `POST /webhooks/test/:token`, the test addresses that the form of the settings page
  offers. A token is signed for one site and good for an hour; afterwards the address answers 410,
  which switches its webhook off. `Plausible.Webhooks.Manage.TestAddress` answers what arrived.

  To the engine a test address is a URL like any other: it needs HTTPS, and public addresses, or
  the operator lets the installation's own name and port in (`WEBHOOKS_ALLOW`). Rejected: an
  exception for our own URL, since a name that resolves to an address inside is what the policy
  is there to refuse.
  """

  @behaviour Plug

  import Plug.Conn

  alias Plausible.Webhooks.Manage.TestAddress

  @salt "webhooks test address"
  @good_for_s 3_600
  @body_bytes_max 262_144

  @doc "A test address of the site."
  @spec url(module(), String.t(), atom(), integer()) :: String.t()
  def url(endpoint, base, instance, site_id),
    do: base <> Phoenix.Token.sign(endpoint, @salt, {instance, site_id})

  @doc "What each test address begins with, if the host's endpoint has this plug."
  @spec base(Plug.Conn.t(), String.t() | nil) :: String.t() | nil
  def base(%{private: %{__MODULE__ => true}} = conn, base_url),
    do: (base_url || conn.private.phoenix_endpoint.url()) <> "/webhooks/test/"

  def base(_conn, _base_url), do: nil

  @impl true
  def init(options), do: options

  @impl true
  def call(%{method: "POST", path_info: ["webhooks", "test", token]} = conn, _options) do
    {status, text} =
      case Phoenix.Token.verify(conn, @salt, token, max_age: @good_for_s) do
        {:ok, {instance, site_id}} -> answer(conn, instance, site_id)
        {:error, :expired} -> {410, "This test address was good for an hour."}
        {:error, _reason} -> {404, "There is no such test address."}
      end

    conn |> put_resp_content_type("text/plain") |> send_resp(status, text) |> halt()
  end

  def call(conn, _options), do: put_private(conn, __MODULE__, true)

  defp answer(conn, instance, site_id) do
    case read_body(conn, length: @body_bytes_max) do
      {:ok, body, conn} -> TestAddress.answer(instance, site_id, conn.req_headers, body)
      {:more, _body, _conn} -> {413, "The body is too long."}
      {:error, _reason} -> {400, "The body did not arrive."}
    end
  end
end
