defmodule Plausible.Webhooks.Ingest.Goals do
  @moduledoc """
  Which goals an event completes, and which webhooks subscribe to them.

  The rules are those of Plausible's statistics, so that a webhook fires for what
  the dashboard counts:

    * an event goal: the event's name, exact and case-sensitive;
    * a page goal: a `pageview` whose path is the goal's, or matches it when it
      holds `*` (any characters, slashes too);
    * a scroll goal: an `engagement` event of such a path with
      `threshold <= scroll_depth <= 100` (255 stands for "not measured");
    * custom properties: the event must have every property of the goal, with the same
      value. A missing property equals the empty string, as in Plausible.

  A visit reports its scroll depth again and again, so a scroll goal completes once per goal,
  session and path (`Plausible.Webhooks.Ingest.Dedup`). Event and page goals complete with
  every event.

  ## How 1 000 goals stay cheap

  `compile/3` runs once per change of a site's goals or webhooks. It makes rows for an ETS
  table, whose keys are event names and literal paths. A path with `*` is filed under the
  rarest three bytes that every match must hold. A bitmap knows these triples. Every three
  bytes of an event's path are looked up in the bitmap, and only goals filed under a triple
  that the path holds are matched. A pattern without three literal bytes in a row (`*a*`) is
  tried on every event.

      iex> alias Plausible.Webhooks.Ingest.{Goals, Subscriptions}
      iex> table = :ets.new(:goals, [:set])
      iex> goals = [%{id: 1, name: "Blog", event_name: nil, page_path: "/blog/**",
      ...>            scroll_threshold: -1, custom_props: %{}, currency: nil}]
      iex> {index, rows} = Goals.compile({7, 1}, goals, [{"wh_1", :all}])
      iex> :ets.insert(table, rows)
      iex> subscriptions = %Subscriptions{site_id: 7, domain: "example.com", table: table,
      ...>   generation: 1, index: index, webhooks: %{"wh_1" => :active}}
      iex> event = %{clickhouse_event: %{name: "pageview", pathname: "/blog/2026/webhooks"}}
      iex> Goals.completed(subscriptions, event, nil)
      [%{goal: %{id: 1, name: "Blog", type: "page", currency: nil}, webhooks: [{"wh_1", :active}]}]
  """

  import Bitwise

  alias Plausible.Webhooks.{Host, Webhook}
  alias Plausible.Webhooks.Ingest.{Dedup, Glob, Subscriptions}

  @typedoc "What every index row of a site begins with: `{site_id, generation}`."
  @type scope :: {integer(), pos_integer()}
  @typedoc "A webhook that wants goal completions, and of which goals."
  @type wish :: {Webhook.id(), :all | [integer()]}
  @typedoc "The goal, as a body has it."
  @type goal :: %{
          id: integer(),
          name: String.t(),
          type: String.t(),
          currency: String.t() | nil
        }
  @typedoc """
  A goal that an event completes, and the webhooks that subscribe to it. `once` is the key of
  a scroll goal in the memory. If the completion is not sent, the caller has to forget the key
  (`Plausible.Webhooks.Ingest.Dedup.forget/2`).
  """
  @type completion :: %{
          required(:goal) => goal(),
          required(:webhooks) => [Subscriptions.subscriber()],
          optional(:once) => tuple()
        }

  @typedoc "A row of the index."
  @type row :: {{integer(), pos_integer(), atom(), term()}, [term()]}

  @multiplier 0x9E3779B1
  # At most 8 KiB of bitmap per site and kind.
  @bits_min 1_024
  @bits_max 65_536

  # --- compiling

  @doc """
  Compiles the goals that at least one webhook wants into an index and the rows
  to put into the table. A goal that is neither an event's nor a page's is left out.
  """
  @spec compile(scope(), [Host.goal()], [wish()]) :: {Subscriptions.index(), [row()]}
  def compile({site_id, generation}, goals, wishes) do
    wishes = Enum.map(wishes, fn {id, wanted} -> {id, wanted_set(wanted)} end)

    by_kind =
      goals
      |> Enum.flat_map(&entry(&1, wishes))
      |> Enum.group_by(&elem(&1, 0), fn {_kind, key, goal} -> {key, goal} end)

    key = fn kind, what -> {site_id, generation, kind, what} end
    {page, page_rows} = compile_paths(Map.get(by_kind, :page, []), &key.(:page, &1))
    {scroll, scroll_rows} = compile_paths(Map.get(by_kind, :scroll, []), &key.(:scroll, &1))
    event_rows = rows(Map.get(by_kind, :event, []), &key.(:event, &1))

    {%{event: event_rows != [], page: page, scroll: scroll},
     event_rows ++ page_rows ++ scroll_rows}
  end

  @doc false
  @spec goal?(term()) :: boolean()
  def goal?(%{id: id} = goal) when is_integer(id), do: kind(goal) != nil
  def goal?(_other), do: false

  defp wanted_set(:all), do: :all
  defp wanted_set(ids) when is_list(ids), do: MapSet.new(ids)

  # A compiled goal is a tuple, not a map: it is copied out of ETS on a match.
  # {id, name, type, scroll_threshold, props, currency, webhook_ids}
  defp entry(%{id: id} = goal, wishes) do
    subscribers =
      for {webhook_id, wanted} <- wishes, wanted == :all or MapSet.member?(wanted, id) do
        webhook_id
      end

    with [_ | _] <- subscribers, {kind, key} <- kind(goal) do
      threshold = Map.get(goal, :scroll_threshold) || -1
      props = Enum.to_list(Map.get(goal, :custom_props) || %{})
      currency = goal |> Map.get(:currency) |> currency()
      name = Map.get(goal, :name) || key
      [{kind, key, {id, name, Atom.to_string(kind), threshold, props, currency, subscribers}}]
    else
      _unwanted_or_unknown -> []
    end
  end

  defp entry(_not_a_goal, _wishes), do: []

  defp kind(%{event_name: name}) when is_binary(name) and name != "", do: {:event, name}

  defp kind(%{page_path: path, scroll_threshold: threshold})
       when is_binary(path) and is_integer(threshold) and threshold > -1,
       do: {:scroll, path}

  defp kind(%{page_path: path}) when is_binary(path) and path != "", do: {:page, path}
  defp kind(_goal), do: nil

  defp currency(nil), do: nil
  defp currency(code), do: to_string(code)

  defp compile_paths([], _key), do: {nil, []}

  defp compile_paths(entries, key) do
    {exact, globs} = Enum.split_with(entries, fn {path, _goal} -> Glob.parse(path) == :exact end)
    branches = for {path, goal} <- globs, branch <- Glob.parse(path), do: {branch, goal}
    filed = file_by_rarest_gram(branches)
    {any, by_gram} = Enum.split_with(filed, fn {gram, _entry} -> gram == :any end)
    {bits, mask} = bitmap(Enum.map(by_gram, &elem(&1, 0)))

    index = %{exact: exact != [], any: any != [], bits: bits, mask: mask}
    {index, rows(exact, key) ++ rows(filed, key, &by_branch/1)}
  end

  # Goals that differ only in their properties share a path, which is matched once.
  defp by_branch(entries),
    do: entries |> Enum.group_by(&elem(&1, 0), &elem(&1, 1)) |> Map.to_list()

  defp rows(entries, key, finish \\ &Function.identity/1) do
    entries
    |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))
    |> Enum.map(fn {what, goals} -> {key.(what), finish.(goals)} end)
  end

  # The rarest: of "/blog/1*" to "/blog/999*" each should be filed under its
  # number, not all of them under "/bl".
  defp file_by_rarest_gram(branches) do
    with_grams = Enum.map(branches, fn {branch, goal} -> {Glob.grams(branch), branch, goal} end)

    frequency =
      with_grams |> Enum.flat_map(fn {grams, _branch, _goal} -> grams end) |> Enum.frequencies()

    Enum.map(with_grams, fn
      {[], branch, goal} -> {:any, {branch, goal}}
      {grams, branch, goal} -> {Enum.min_by(grams, &frequency[&1]), {branch, goal}}
    end)
  end

  defp bitmap([]), do: {nil, 0}

  defp bitmap(grams) do
    size = bitmap_size(length(grams) * 16, @bits_min)
    mask = size - 1

    # Over 64 bytes, so that ETS hands out a reference and copies nothing.
    bits =
      grams
      |> Enum.map(&slot(&1, mask))
      |> Enum.group_by(&(&1 >>> 3), &(1 <<< (&1 &&& 7)))
      |> then(fn bytes ->
        for at <- 0..(div(size, 8) - 1), into: <<>> do
          <<bytes |> Map.get(at, []) |> Enum.reduce(0, &bor/2)>>
        end
      end)

    {bits, mask}
  end

  defp bitmap_size(wanted, size) when size >= wanted or size >= @bits_max, do: size
  defp bitmap_size(wanted, size), do: bitmap_size(wanted, size * 2)

  defp slot(gram, mask), do: (gram * @multiplier) >>> 16 &&& mask

  # --- matching

  @doc """
  The goals that this event completes, each with the webhooks that subscribe to it.

  `event` is an event of Plausible's ingestion: a map with a `:clickhouse_event`, which has
  atom keys. Anything else completes nothing.
  `dedup` is a `Plausible.Webhooks.Ingest.Dedup` handle, or `nil` to let every engagement
  event complete its scroll goals.
  """
  @spec completed(Subscriptions.t(), map(), Dedup.t() | nil) :: [completion()]
  def completed(
        %Subscriptions{} = subscriptions,
        %{clickhouse_event: %{name: name} = event},
        dedup
      )
      when is_binary(name) do
    candidates = subscriptions |> candidates(event, name) |> Enum.uniq()
    props = if Enum.any?(candidates, &(elem(&1, 4) != [])), do: props(event), else: %{}
    Enum.flat_map(candidates, &completion(&1, subscriptions, event, props, dedup))
  end

  def completed(%Subscriptions{}, _event, _dedup), do: []

  defp candidates(%{index: index} = subscriptions, event, name) do
    by_name = if index.event, do: row(subscriptions, :event, name), else: []

    case name do
      "pageview" -> by_name ++ path_candidates(index.page, subscriptions, :page, event)
      "engagement" -> by_name ++ path_candidates(index.scroll, subscriptions, :scroll, event)
      _custom_event -> by_name
    end
  end

  defp path_candidates(nil, _subscriptions, _kind, _event), do: []

  defp path_candidates(paths, subscriptions, kind, %{pathname: path}) when is_binary(path) do
    exact = if paths.exact, do: row(subscriptions, kind, path), else: []
    any = if paths.any, do: row(subscriptions, kind, :any), else: []

    filed =
      if paths.bits do
        <<0, path::binary, 0>> |> held(paths.bits, paths.mask, []) |> Enum.uniq()
      else
        []
      end

    exact ++
      for entries <- [any | Enum.map(filed, &row(subscriptions, kind, &1))],
          {branch, goals} <- entries,
          Glob.match?(branch, path),
          goal <- goals,
          do: goal
  end

  defp path_candidates(_paths, _subscriptions, _kind, _event), do: []

  defp row(%{table: table, site_id: site_id, generation: generation}, kind, what) do
    case :ets.lookup(table, {site_id, generation, kind, what}) do
      [{_key, entries}] -> entries
      [] -> []
    end
  end

  # Which of the filed grams the path holds; a false one only costs a lookup.
  defp held(<<gram::24, _::binary>> = path, bits, mask, found) do
    <<_, rest::binary>> = path
    slot = slot(gram, mask)

    if (:binary.at(bits, slot >>> 3) >>> (slot &&& 7) &&& 1) == 1 do
      held(rest, bits, mask, [gram | found])
    else
      held(rest, bits, mask, found)
    end
  end

  defp held(_end, _bits, _mask, found), do: found

  defp completion(candidate, subscriptions, event, props, dedup) do
    {id, name, type, threshold, wanted, currency, ids} = candidate

    with [_ | _] = webhooks <- subscribers(ids, subscriptions.webhooks),
         true <- type != "scroll" or deep_enough?(event, threshold),
         true <- wanted == [] or props_hold?(wanted, props),
         once = if(type == "scroll" and dedup != nil, do: once(subscriptions.site_id, id, event)),
         true <- once == nil or Dedup.first_time?(dedup, once) do
      goal = %{id: id, name: name, type: type, currency: currency}
      completion = %{goal: goal, webhooks: webhooks}
      [if(once, do: Map.put(completion, :once, once), else: completion)]
    else
      _no -> []
    end
  end

  # A webhook that was deleted or paused since the goals were compiled is not in
  # the map any more.
  defp subscribers(ids, webhooks) do
    for id <- ids, status = Map.get(webhooks, id), do: {id, status}
  end

  defp deep_enough?(%{scroll_depth: depth}, threshold) when is_integer(depth),
    do: depth >= threshold and depth <= 100

  defp deep_enough?(_event, _threshold), do: false

  defp props_hold?(wanted, props),
    do: Enum.all?(wanted, fn {key, value} -> Map.get(props, key, "") == value end)

  defp once(site_id, goal_id, %{session_id: session, pathname: path})
       when session not in [nil, 0],
       do: {site_id, goal_id, session, path}

  # Without a session nothing says that two events are the same visit.
  defp once(_site_id, _goal_id, _event), do: nil

  @doc """
  The event's custom properties: the parallel lists `:"meta.key"` and `:"meta.value"` as a
  map. If a name occurs twice, the first one counts, as in Plausible's statistics. Names and
  values that are not text are left out.
  """
  @spec props(map()) :: %{String.t() => String.t()}
  def props(%{"meta.key": keys, "meta.value": values}), do: zip(keys, values, %{})
  def props(_event), do: %{}

  defp zip([key | keys], [value | values], props) when is_binary(key) and is_binary(value),
    do: zip(keys, values, Map.put_new(props, key, value))

  defp zip([_key | keys], [_value | values], props), do: zip(keys, values, props)
  defp zip(_keys, _values, props), do: props
end
