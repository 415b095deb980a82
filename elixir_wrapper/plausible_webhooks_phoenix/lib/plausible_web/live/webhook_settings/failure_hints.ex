defmodule PlausibleWeb.Live.WebhookSettings.FailureHints do
  @moduledoc false
  # What a failed attempt means, and what to do about it.

  alias Plausible.Webhooks.Attempt

  @type hint :: %{meaning: String.t(), action: String.t()}

  @statuses %{
    400 =>
      {"Your endpoint found the request malformed.",
       "Check that it expects a JSON body and reads it unchanged."},
    401 =>
      {"Your endpoint requires authentication, or did not accept the signature.",
       "Check that it verifies with this webhook's secret, over the raw body. If it expects a token of its own, add it under extra headers."},
    403 =>
      {"Your endpoint, or a firewall in front of it, refuses our requests.",
       "Check the rules of your firewall or bot protection for POSTs with the user agent Plausible-Webhooks. If a token is missing, add it under extra headers."},
    404 =>
      {"The server exists, but this path does not.",
       "Check the path of the URL, including capital letters and a slash at the end."},
    405 => {"The path exists, but does not accept POST.", "Make the route accept POST requests."},
    408 =>
      {"Your endpoint gave up waiting for our request.",
       "Check its timeouts. We send the whole request at once."},
    413 => {"The body is too large for your endpoint.", "Raise its limit to 256 KiB."},
    415 =>
      {"Your endpoint does not accept this content type.", "Make it accept application/json."},
    421 =>
      {"The server that answered does not serve this host name.",
       "Check the virtual hosts and the certificate of the server."},
    422 =>
      {"Your endpoint understood the request and rejected its content.",
       "Its own log should say which field is missing."},
    429 =>
      {"Your endpoint receives more than it accepts.",
       "Nothing to do: we hold all deliveries to this webhook back for as long as its Retry-After header says, and then send more slowly. Within the first day, this costs a delivery no retry. To stop deliveries for longer, pause the webhook."},
    500 =>
      {"Your endpoint failed while it handled the request.",
       "Check its log at the time of this attempt."},
    501 =>
      {"Your endpoint does not implement this method.", "Make the route accept POST requests."},
    502 =>
      {"The proxy in front of your endpoint got no valid answer from it.",
       "Check that the application behind the proxy is running."},
    503 =>
      {"Your endpoint is not available at the moment.",
       "Nothing to do: we try again. If the answer has a Retry-After header, we hold all deliveries to this webhook back for as long as it says. Within the first day, this costs a delivery no retry."},
    504 =>
      {"The proxy in front of your endpoint got no answer from it in time.",
       "Answer first and do the work afterwards, or raise the proxy's timeout."}
  }

  # The name of the class, what it means, what to do. HTTP statuses and TLS errors have
  # tables of their own.
  @classes %{
    http_status:
      {"error status", "This status does not confirm that the event arrived.",
       "Answer with a status from 200 to 299."},
    tls_error:
      {"TLS error", "No secure connection could be established.",
       "Check the server's certificate, and that the server speaks TLS 1.2 or newer."},
    redirect:
      {"redirect",
       "Your endpoint redirects to another address. Redirects are never followed: they would hand the signed request to another server.",
       "Enter the final URL. Check whether it needs https instead of http, www, or a slash at the end."},
    gone:
      {"gone (410)",
       "Your endpoint answered 410: it wants no more requests. The webhook was switched off.",
       "If you did not intend this, fix the endpoint and send a test: a success switches the webhook on again."},
    dns_error:
      {"host not found", "The host name has no address.",
       "Check the spelling of the host, and its DNS records (A or AAAA)."},
    dns_timeout:
      {"name servers too slow", "The name servers of this host did not answer in time.",
       "Check the name servers of the domain."},
    blocked_address:
      {"address not allowed",
       "The host has an address that we do not connect to, because it is private or reserved.",
       "Use a host whose addresses are all public, or ask the operator of this server to allow the network."},
    connection_refused:
      {"connection refused", "Nothing listens at this address and port.",
       "Check that the server is running and that the port of the URL is right."},
    connection_reset:
      {"connection closed", "The connection was closed before there was an answer.",
       "Look for a crash, a proxy or a firewall that closes connections."},
    connection_closed:
      {"kept connection ended",
       "Your server closed a connection that was kept open, just as the next request was sent over it.",
       "Nothing to do: the request is sent again at once over a new connection."},
    network_unreachable:
      {"network unreachable", "There is no route to this address from here.",
       "Check the addresses of the host, including IPv6: an AAAA record that leads nowhere causes this."},
    connect_timeout:
      {"no connection in time", "No connection was established in time.",
       "A firewall that drops packets causes this. Allow connections from outside to the port of the URL."},
    tls_timeout:
      {"TLS handshake too slow",
       "The connection was established, but the TLS handshake did not finish in time.",
       "Check that the server speaks TLS on this port and is not overloaded."},
    timeout:
      {"no answer in time", "The request was sent, but there was no complete answer in time.",
       "Answer 2xx first and do the work afterwards."},
    response_too_large:
      {"response headers too large", "The headers of the answer are larger than we accept.",
       "Send fewer headers; a status is enough."},
    protocol_error:
      {"not HTTP", "The answer is not HTTP.",
       "Check that an HTTP server listens on this port. An https:// URL for a port that speaks plain HTTP, or the reverse, causes this."},
    cancelled:
      {"cancelled", "The delivery was cancelled before an answer arrived.",
       "Send it again if you want it to arrive."},
    unknown_webhook:
      {"webhook deleted", "The webhook was deleted while the delivery waited.", "Nothing to do."},
    internal:
      {"internal error", "Something went wrong on our side.",
       "Send it again; if that does not help, tell the operator of this server."}
  }

  # Hints by a part of the TLS library's message.
  @tls [
    {"unable to get local issuer",
     {"The certificate could not be traced to a known authority. Usually the server does not send the intermediate certificate, which browsers find by themselves.",
      "Make the server send the full chain (often called fullchain.pem), or get a certificate from a public authority."}},
    {"unable to verify the first",
     {"The server sends only its own certificate, without the intermediate one that leads to the authority.",
      "Make the server send the full chain (often called fullchain.pem)."}},
    {["self-signed", "self signed"],
     {"The certificate is self-signed, or signed by an authority of your own.",
      "Use a certificate from a public authority; Let's Encrypt issues them for free."}},
    {"expired",
     {"The certificate has expired.", "Renew it, and make the server load the new one."}},
    {"not yet valid",
     {"The certificate is not valid yet.", "Check the clock of the machine that issued it."}},
    {["no alternative certificate", "does not match target host"],
     {"The certificate does not name this host.",
      "Get one that names this host, or use a host that the certificate names."}},
    {"wrong version number",
     {"The server does not speak TLS on this port.",
      "Check the port: it seems to be one for plain HTTP."}},
    {"certificate required",
     {"The server requires a client certificate, which we do not have.",
      "Do not require one for this path. Our requests are signed instead."}}
  ]

  @doc "The hint for an attempt, `nil` for one that did not fail."
  @spec hint(Attempt.t()) :: hint() | nil
  def hint(%Attempt{error: nil}), do: nil
  def hint(%Attempt{} = attempt), do: hint(attempt.error, attempt.status, attempt.detail)

  @spec hint(atom(), integer() | nil, String.t() | nil) :: hint()
  def hint(class, status, detail) do
    {_name, meaning, action} = Map.get(@classes, class, @classes.internal)
    {meaning, action} = special(class, status, detail || "") || {meaning, action}
    %{meaning: meaning, action: action}
  end

  defp special(:tls_error, _status, detail),
    do: Enum.find_value(@tls, fn {parts, hint} -> String.contains?(detail, parts) && hint end)

  defp special(:http_status, status, _detail) when is_map_key(@statuses, status),
    do: @statuses[status]

  defp special(:http_status, status, _detail) when status in 400..499,
    do: {"Your endpoint refuses the request.", "Its own log, or the answer below, may say why."}

  defp special(:http_status, status, _detail) when status in 500..599, do: @statuses[500]
  defp special(_class, _status, _detail), do: nil

  @doc "The name of a class, given as an atom or as a string; `nil` for any other value."
  @spec name(atom() | String.t() | nil) :: String.t() | nil
  def name(class) when is_map_key(@classes, class), do: @classes |> Map.fetch!(class) |> elem(0)

  def name(class) when is_binary(class),
    do: Enum.find_value(@classes, fn {key, hint} -> to_string(key) == class && elem(hint, 0) end)

  def name(_other), do: nil

  @doc "Every error class."
  @spec classes() :: [atom()]
  def classes, do: Map.keys(@classes)
end
