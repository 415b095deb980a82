defmodule PlausibleWeb.Live.WebhookSettings.Texts.Failures do
  @moduledoc false
  # What an attempt that failed means, and what to do about it; `nil` for one that
  # did not fail. Part of the page's texts.

  alias Plausible.Webhooks.Attempt

  @type hint :: %{meaning: String.t(), action: String.t()}

  @statuses %{
    400 =>
      {"Your endpoint found the request malformed.",
       "Check that it expects a JSON body and reads it as it is."},
    401 =>
      {"Your endpoint wants to know who is calling, or did not accept the signature.",
       "Check that it verifies with this webhook's secret, over the raw body. If it wants a token of its own, add it under extra headers."},
    403 =>
      {"Your endpoint, or a firewall before it, refuses us.",
       "Check the rules of your firewall or bot protection for POSTs with the user agent Plausible-Webhooks. If a token is missing, add it under extra headers."},
    404 =>
      {"The server is there, this path is not.",
       "Check the path of the URL: capital letters and a slash at the end count."},
    405 => {"The path is there, but takes no POST.", "Have the route accept the method POST."},
    408 =>
      {"Your endpoint gave up waiting for our request.",
       "Look at its timeouts; we send the whole request at once."},
    413 => {"Your endpoint finds the body too large.", "Raise its limit to 256 KiB."},
    415 => {"Your endpoint does not take this content type.", "Have it accept application/json."},
    421 =>
      {"The server that answered does not serve this host name.",
       "Check the virtual hosts and the certificate of the server."},
    422 =>
      {"Your endpoint understood the request and did not like its content.",
       "Its own log will say which field it missed."},
    429 =>
      {"Your endpoint gets more than it wants.",
       "Nothing to do: we wait as long as its Retry-After header says. To be left alone for longer, pause the webhook."},
    500 =>
      {"Your endpoint failed while it handled the request.",
       "Look into its log at the time of this attempt."},
    501 => {"Your endpoint does not implement this.", "Have the route accept the method POST."},
    502 =>
      {"The proxy before your endpoint got no valid answer from it.",
       "Check that the application behind the proxy is running."},
    503 =>
      {"Your endpoint says that it is not available now.",
       "We try again, as its Retry-After header says if it has one."},
    504 =>
      {"The proxy before your endpoint waited for it in vain.",
       "Answer first and do the work afterwards, or raise the proxy's timeout."}
  }

  @classes %{
    redirect:
      {"Your endpoint redirects to another address. Redirects are never followed: they would hand the signed request to somebody else.",
       "Enter the final URL: mind https instead of http, www, and a slash at the end."},
    gone:
      {"Your endpoint answered 410: it wants no more. The webhook was switched off.",
       "If that was not meant, fix the endpoint and send a test: a success switches the webhook on again."},
    dns_error:
      {"The host name has no address.",
       "Check the spelling of the host, and its DNS records (A or AAAA)."},
    dns_timeout:
      {"The name servers of this host did not answer in time.",
       "Check the name servers of the domain."},
    blocked_address:
      {"The host has an address that we do not connect to: one inside a network, or a reserved one.",
       "Use a host whose addresses are all public, or ask the operator of this server to allow the network."},
    connection_refused:
      {"Nothing listens at this address and port.",
       "Check that the server is running and that the port of the URL is right."},
    connection_reset:
      {"The connection was closed before there was an answer.",
       "Look for a crash, a proxy or a firewall that closes connections."},
    network_unreachable:
      {"There is no way to this address from here.",
       "Check the address of the host, IPv6 too: an AAAA record that leads nowhere does this."},
    connect_timeout:
      {"No connection came about in time.",
       "A firewall that drops packets does this: allow connections from outside to the port of the URL."},
    tls_timeout:
      {"The connection stands, but the TLS handshake did not end in time.",
       "Check that the server speaks TLS on this port and is not overloaded."},
    timeout:
      {"The request was sent, and there was no whole answer in time.",
       "Answer 2xx first and do the work afterwards."},
    response_too_large:
      {"The headers of the answer are larger than we read.",
       "Answer with less: a status is enough."},
    protocol_error:
      {"What came back is not HTTP.",
       "Check that an HTTP server listens on this port; https:// to a port that speaks plain HTTP, or the reverse, does this."},
    cancelled:
      {"It was cancelled before an answer came.", "Send it again if you want it to arrive."},
    unknown_webhook: {"The webhook was deleted while the delivery waited.", "Nothing to do."},
    internal:
      {"Something went wrong on our side.",
       "Send it again; if that does not help, tell the operator of this server."}
  }

  # By what the TLS library says.
  @tls [
    {"unable to get local issuer",
     {"The certificate could not be traced to an authority that we know. Mostly the server leaves out the intermediate certificate; browsers hide that.",
      "Have the server send the full chain (often called fullchain.pem), or get a certificate of a public authority."}},
    {"unable to verify the first",
     {"The server sends its own certificate only, without the intermediate one that leads to the authority.",
      "Have the server send the full chain (often called fullchain.pem)."}},
    {"self-signed",
     {"The certificate is signed by itself, or by an authority of your own.",
      "Use a certificate of a public authority; Let's Encrypt gives them for nothing."}},
    {"self signed",
     {"The certificate is signed by itself, or by an authority of your own.",
      "Use a certificate of a public authority; Let's Encrypt gives them for nothing."}},
    {"expired",
     {"The certificate has expired.", "Renew it, and have the server load the new one."}},
    {"not yet valid",
     {"The certificate is not valid yet.", "Check the clock of the machine that made it."}},
    {"no alternative certificate",
     {"The certificate is for other host names than this one.",
      "Get one that names this host, or use the host that it names."}},
    {"does not match target host",
     {"The certificate is for other host names than this one.",
      "Get one that names this host, or use the host that it names."}},
    {"wrong version number",
     {"The server does not speak TLS on this port.",
      "Check the port: it seems to be one for plain HTTP."}},
    {"certificate required",
     {"The server wants a client certificate, which we do not have.",
      "Switch that off for this path; our requests are signed instead."}}
  ]

  @doc "For an attempt."
  @spec hint(Attempt.t()) :: hint() | nil
  def hint(%Attempt{error: nil}), do: nil
  def hint(%Attempt{} = attempt), do: hint(attempt.error, attempt.status, attempt.detail)

  @doc "By its error class, status and detail."
  @spec hint(atom() | nil, integer() | nil, String.t() | nil) :: hint()
  def hint(:tls_error, _status, detail) do
    found =
      Enum.find_value(@tls, fn {part, pair} -> String.contains?(detail || "", part) && pair end)

    as_hint(
      found ||
        {"No secure connection could be agreed on.",
         "Check the server's certificate and that it speaks TLS 1.2 or newer."}
    )
  end

  def hint(:http_status, status, _detail), do: as_hint(status(status))
  def hint(class, _status, _detail), do: as_hint(Map.get(@classes, class, @classes.internal))

  defp status(status) when is_map_key(@statuses, status), do: Map.fetch!(@statuses, status)

  defp status(status) when status in 400..499,
    do: {"Your endpoint refuses the request.", "Its own log, or the answer below, will say why."}

  defp status(status) when status in 500..599,
    do:
      {"Your endpoint failed while it handled the request.",
       "Look into its log at the time of this attempt."}

  defp status(_other),
    do: {"This is no status that says that it arrived.", "Answer with one from 200 to 299."}

  defp as_hint({meaning, action}), do: %{meaning: meaning, action: action}

  @names %{
    http_status: "error status",
    redirect: "redirect",
    gone: "gone (410)",
    dns_error: "host not found",
    dns_timeout: "name servers too slow",
    blocked_address: "address not allowed",
    connection_refused: "connection refused",
    connection_reset: "connection closed",
    network_unreachable: "network unreachable",
    connect_timeout: "no connection in time",
    tls_error: "TLS error",
    tls_timeout: "TLS handshake too slow",
    timeout: "no answer in time",
    response_too_large: "response headers too large",
    protocol_error: "not HTTP",
    cancelled: "cancelled",
    unknown_webhook: "webhook deleted",
    internal: "internal error"
  }
  @by_string Map.new(@names, fn {class, name} -> {Atom.to_string(class), name} end)

  @doc "The class in short, given as an atom or as the log has it; `nil` for one that is none."
  @spec name(atom() | String.t() | nil) :: String.t() | nil
  def name(class) when is_atom(class), do: Map.get(@names, class)
  def name(class), do: Map.get(@by_string, class)

  @doc "Every error class that there is a name for."
  @spec classes() :: [atom()]
  def classes, do: Map.keys(@names)
end
