# Writes what receivers build on: docs/schemas/*.json, docs/openapi.json, docs/asyncapi.json,
# and the code that docs/receiving.md quotes from docs/receivers. The descriptions below are
# the one source; the examples are bodies as Plausible.Webhooks.Ingest.Payload makes them.
#
#   cd elixir_wrapper/plausible_webhooks
#   mix run --no-start -r ../../tools/contract.ex -e 'Contract.write()'
#
# test/contract_test.exs fails if a file is out of date.
#
# Receivers reject what a schema rejects, so a schema leaves room: no object is closed, and
# nothing is an enum to which a value may be added.
Code.require_file("contract_events.ex", __DIR__)

defmodule Contract do
  alias Plausible.Webhooks.{Event, Native}

  @docs Path.expand("../docs", __DIR__)
  # Incremented by what breaks a receiver. New types, members and values do not.
  @version "1"
  # A name, at which nothing is served.
  @base "https://plausible.io/webhooks/schemas/#{@version}/"

  def write, do: for({name, text} <- files(), do: File.write!(Path.join(@docs, name), text))

  @doc "The files that are out of date."
  def stale,
    do: for({name, text} <- files(), File.read(Path.join(@docs, name)) != {:ok, text}, do: name)

  @doc "Each file's name and text."
  def files do
    schemas =
      for type <- Event.types(), do: {"schemas/#{type}.json", [json(schema(type), ""), "\n"]}

    documents = [{"openapi.json", openapi()}, {"asyncapi.json", asyncapi()}]

    for {name, text} <-
          schemas ++
            for({name, value} <- documents, do: {name, [json(value, ""), "\n"]}) ++
            [{"receiving.md", quoted()}],
        do: {name, IO.iodata_to_binary(text)}
  end

  # --- JSON whose members stay in order: an object is a keyword list

  defp json([{_key, _value} | _] = members, indent) do
    inner = indent <> "  "

    lines =
      for {key, value} <- members, do: [inner, text(to_string(key)), ": ", json(value, inner)]

    ["{\n", Enum.intersperse(lines, ",\n"), "\n", indent, "}"]
  end

  defp json(list, indent) when is_list(list) do
    if Enum.any?(list, &is_list/1) do
      inner = indent <> "  "
      items = for item <- list, do: [inner, json(item, inner)]
      ["[\n", Enum.intersperse(items, ",\n"), "\n", indent, "]"]
    else
      ["[", list |> Enum.map(&text/1) |> Enum.intersperse(", "), "]"]
    end
  end

  defp json(value, _indent), do: text(value)

  defp text(value) do
    {:ok, json} = Native.encode(value)
    json
  end

  # --- schemas

  defp schema(type) do
    ["$schema": "https://json-schema.org/draft/2020-12/schema", "$id": @base <> type <> ".json"] ++
      described(type) ++ [examples: examples(type)]
  end

  defp described(type) do
    {title, description, data} = body(type)

    ([title: title, description: description] ++
       object(
         type: [const: type],
         timestamp:
           time(
             "The time when the event was detected, in UTC with milliseconds. Every attempt and " <>
               "redelivery has the same value."
           ),
         data: data,
         test: [
           description:
             "Present, and true, when somebody pressed the test button: nothing has happened " <>
               "at the site.",
           const: true
         ]
       ))
    |> Keyword.put(
      :required,
      ~w(type timestamp data) ++ if(type == "webhook.test", do: ["test"], else: [])
    )
  end

  defp body("goal.completed") do
    {"A goal was completed",
     "Sent for every completion of a goal that the webhook subscribed to. A scroll goal completes " <>
       "once per visit and page. An event that completes several goals is sent once for each of them.",
     object(
       site: site(),
       goal:
         object(
           id: [description: "The goal's id.", type: "integer"],
           name: string("The goal's display name."),
           type:
             string(
               "What completes the goal: `event`, a custom event; `page`, a page view; `scroll`, " <>
                 "scrolling a page down to some depth. More may be added."
             )
         ),
       completion: completion()
     )}
  end

  defp body("traffic." <> kind) when kind in ["spike", "drop"] do
    {title, description} =
      if kind == "spike",
        do:
          {"Traffic spike",
           "Sent once when the visitors of the last five minutes reach the webhook's threshold. " <>
             "The next spike is sent only after the visitors fell more than a tenth below the " <>
             "threshold."},
        else:
          {"Traffic drop",
           "Sent once when the visitors of the last twelve hours fall below the webhook's " <>
             "threshold. The next drop is sent only after the visitors rose to at least a tenth " <>
             "above the threshold."}

    {title, description,
     object(
       site: site(),
       alert: alert("firing", []),
       current_visitors: current_visitors(),
       threshold: threshold(),
       window_seconds: window(),
       baseline: baseline(),
       top_sources:
         list(
           "The sources of most visitors, the largest first; `[]` for a drop.",
           object(name: [type: "string"], visitors: count())
         ),
       top_pages:
         list(
           "The pages with most visitors, the largest first; `[]` for a drop.",
           object(path: [type: "string"], visitors: count())
         ),
       dashboard_url: dashboard_url()
     )}
  end

  defp body("traffic.resolved") do
    kind = string("What has ended: `spike` or `drop`. More may be added.")
    resolved = time("The time when the end was detected.")

    {"Traffic is back to normal",
     "Sent when a spike or a drop is over, to webhooks that subscribed to this type. It may arrive " <>
       "twice after a crash, with the same `alert.id`.",
     object(
       site: site(),
       alert: alert("resolved", kind: kind, resolved_at: resolved),
       current_visitors: current_visitors(),
       threshold: threshold(),
       window_seconds: window(),
       dashboard_url: dashboard_url()
     )}
  end

  defp body("webhook.test") do
    {"Test", "Sent once when somebody presses the test button, without retries.",
     object(site: site(), message: string("A text for humans."))}
  end

  defp completion do
    object(
      event_name:
        string("The event's name; `pageview` for a page goal, `engagement` for a scroll goal."),
      hostname: text_or_null("The host name of the page, without the port."),
      pathname: text_or_null("The page's path."),
      occurred_at:
        text_or_null("The time of the visitor's action, in UTC, to the second.") ++
          [format: "date-time"],
      props: [
        description:
          "The event's custom properties that the site shows, at most 30; `{}` if there are none. " <>
            "Bytes that are not UTF-8 are replaced by U+FFFD. If the body would exceed 256 KiB, " <>
            "values are cut to 500 bytes and end in an ellipsis.",
        type: "object",
        additionalProperties: [type: "string"]
      ],
      revenue:
        object(
          amount:
            string("A decimal number as text, so that it is never rounded.") ++
              [pattern: "^-?[0-9]+(\\.[0-9]+)?$"],
          currency: string("The ISO 4217 code of the currency.") ++ [pattern: "^[A-Z]{3}$"]
        )
        |> nullable(
          "The amount in the goal's currency if that is known, otherwise as the visitor paid it. " <>
            "null without revenue, and for a site without revenue goals."
        ),
      referrer: text_or_null("The page that the visitor came from."),
      source:
        text_or_null("The visit's source as the dashboard names it; null for a direct visit."),
      utm: [
        description:
          "The visit's UTM parameters. Parameters that the visit did not have are left out.",
        type: "object",
        properties:
          for(name <- ~w(source medium campaign content term)a, do: {name, [type: "string"]})
      ],
      country: text_or_null("The ISO 3166-1 alpha-2 code of the visitor's country."),
      device:
        text_or_null(
          "`Desktop`, `Laptop`, `Tablet`, `Mobile`, or another name that the dashboard shows."
        ),
      browser: text_or_null("The browser's name."),
      os: text_or_null("The operating system's name.")
    )
  end

  defp site do
    domain = string("The site's domain, as its dashboard shows it.") ++ [minLength: 1]
    [description: "The site of the event."] ++ object(domain: domain)
  end

  defp alert(status, more) do
    ([
       id:
         string("The alert's id. It is the same when the alert fires and when it is resolved.") ++
           [minLength: 1],
       status: [const: status],
       started_at: time("The time when the breach began.")
     ] ++ more)
    |> object()
  end

  defp baseline do
    object(
      visitors: [
        description: "The mean of the samples, to one decimal.",
        type: "number",
        minimum: 0
      ],
      method:
        string("How the usual traffic was found: `same_weekday_and_time_4w`. More may be added."),
      samples: list("The samples, the latest week first.", count()) ++ [minItems: 1],
      change_percent: [
        description:
          "The difference between `current_visitors` and the mean, in percent of the mean; " <>
            "negative below it. null if the mean is 0.",
        type: ["number", "null"]
      ]
    )
    |> nullable(
      "The usual traffic: the unique visitors of the same window 1, 2, 3 and 4 weeks earlier. " <>
        "null if the site is too young, or if the figures were not available."
    )
  end

  defp current_visitors,
    do: [description: "Unique visitors of the last `window_seconds`."] ++ count()

  defp threshold,
    do: [
      description: "The threshold that was crossed.",
      type: ["integer", "null"],
      minimum: 1
    ]

  defp window,
    do: [
      description: "The length of the window: 300 for a spike, 43200 for a drop.",
      type: "integer",
      minimum: 1
    ]

  defp dashboard_url,
    do: text_or_null("The URL of the site's dashboard.") ++ [pattern: "^https?://"]

  # Every member is required. A new one must not be, or old bodies would not be valid.
  defp object(properties) do
    required = for {name, _schema} <- properties, do: to_string(name)
    [type: "object", required: required, properties: properties]
  end

  defp nullable(schema, description),
    do: [description: description] ++ Keyword.put(schema, :type, ["object", "null"])

  defp list(description, items), do: [description: description, type: "array", items: items]
  defp string(description), do: [description: description, type: "string"]
  defp text_or_null(description), do: [description: description, type: ["string", "null"]]
  defp time(description), do: string(description) ++ [format: "date-time"]
  defp count, do: [type: "integer", minimum: 0]

  # --- examples

  defp examples(type),
    do: for(body <- Contract.Events.bodies(type), do: ordered(body, described(type)))

  # In the order of the schema; a member that it does not describe stops the script.
  defp ordered(%{} = value, schema) do
    properties = Keyword.get(schema, :properties, [])
    named = for {name, member} <- properties, key = to_string(name), do: {key, member}

    for {key, _inner} <- value,
        not List.keymember?(named, key, 0),
        schema[:additionalProperties] == nil,
        do: raise("#{key} is not described")

    described =
      for {key, member} <- named, is_map_key(value, key), do: {key, ordered(value[key], member)}

    other = for {key, inner} <- value, not List.keymember?(named, key, 0), do: {key, inner}
    if described ++ other == [], do: %{}, else: described ++ other
  end

  defp ordered(list, schema) when is_list(list),
    do: for(item <- list, do: ordered(item, schema[:items]))

  defp ordered(value, _schema), do: value

  # --- OpenAPI and AsyncAPI

  @headers [
    "webhook-id": "The delivery's id. Every attempt and redelivery has the same one.",
    "webhook-timestamp": "The time of this attempt in Unix seconds.",
    "webhook-signature":
      "`v1,` and the Base64 form of HMAC-SHA256 over `webhook-id.webhook-timestamp.body`. During " <>
        "a rotation there is one for each secret, separated by spaces."
  ]

  @answers [
    "2XX": "Delivered.",
    "410": "Failed, and the webhook is disabled.",
    "429":
      "The webhook gets nothing before the time in `Retry-After`, and then less per second. The " <>
        "delivery is retried.",
    "503": "With `Retry-After`: as for 429. Without it: retried.",
    default: "Retried, and in the end failed. Redirects are not followed."
  ]

  defp info do
    [
      title: "Plausible webhooks",
      version: @version,
      description:
        "Signed POSTs of Plausible Analytics. A receiver must ignore members, types and values " <>
          "that it does not know."
    ]
  end

  defp openapi do
    [
      openapi: "3.1.0",
      info: info(),
      webhooks: for(type <- Event.types(), do: {type, [post: operation(type)]}),
      components: [
        schemas: schemas(),
        parameters:
          for {name, description} <- @headers do
            parameter = [name: to_string(name), in: "header", required: true]
            {name, parameter ++ [description: description, schema: [type: "string"]]}
          end
      ]
    ]
  end

  defp operation(type) do
    {title, description, _data} = body(type)

    examples =
      for {value, n} <- Enum.with_index(examples(type), 1), do: {"example_#{n}", [value: value]}

    [
      operationId: type,
      summary: title,
      description: description,
      parameters: for({name, _} <- @headers, do: ["$ref": "#/components/parameters/#{name}"]),
      requestBody: [
        required: true,
        content: ["application/json": [schema: ["$ref": reference(type)], examples: examples]]
      ],
      responses: for({status, text} <- @answers, do: {status, [description: text]})
    ]
  end

  defp asyncapi do
    [
      asyncapi: "3.0.0",
      info: info(),
      defaultContentType: "application/json",
      channels: [
        webhook: [
          description: "The URL of a webhook.",
          messages:
            for(type <- Event.types(), do: {type, ["$ref": "#/components/messages/#{type}"]})
        ]
      ],
      operations: [
        send: [
          action: "send",
          channel: ["$ref": "#/channels/webhook"],
          bindings: [http: [method: "POST"]]
        ]
      ],
      components: [
        schemas: schemas(),
        messages: for(type <- Event.types(), do: {type, message(type)})
      ]
    ]
  end

  defp message(type) do
    {title, description, _data} = body(type)
    headers = for {name, text} <- @headers, do: {name, string(text)}

    [
      name: type,
      title: title,
      description: description,
      headers: object(headers),
      payload: ["$ref": reference(type)],
      examples: for(value <- examples(type), do: [payload: value])
    ]
  end

  defp schemas, do: for(type <- Event.types(), do: {type, described(type)})
  defp reference(type), do: "#/components/schemas/#{type}"

  # --- code in receiving.md: the block after <!-- file: NAME --> is that file

  defp quoted do
    Regex.replace(
      ~r/(<!-- file: (\S+) -->\n+```\w*\n).*?(\n```)/s,
      File.read!(Path.join(@docs, "receiving.md")),
      fn _all, begin, name, ending ->
        begin <> String.trim_trailing(File.read!(Path.join(@docs, name))) <> ending
      end
    )
  end
end
