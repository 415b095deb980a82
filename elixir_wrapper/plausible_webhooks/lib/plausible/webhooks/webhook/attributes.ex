defmodule Plausible.Webhooks.Webhook.Attributes do
  @moduledoc false
  # Casts and checks a user's attributes: first each one by itself, then those that depend on
  # each other, as they would be in the changed webhook.

  alias Plausible.Webhooks.{Event, Native}
  alias Plausible.Webhooks.Webhook.{Secrets, URL}

  @typedoc "What is wrong, by attribute; an unknown attribute under the name it came with."
  @type errors :: %{(atom() | String.t()) => String.t()}

  @names ~w(name url enabled events goals spike_threshold drop_threshold
            traffic_min_interval_s headers secret version)a
  @by_string Map.new(@names, &{Atom.to_string(&1), &1})

  @name_characters_max 100
  @goals_max 1_000
  @integer_max 9_223_372_036_854_775_807
  @threshold_max 1_000_000_000
  @interval_s_max 7 * 86_400

  @doc """
  The attributes that change, cast. `extra` are names allowed beyond those that a
  change may have.
  """
  @spec cast(struct(), map() | keyword(), map(), [atom()], [atom()]) ::
          {:ok, map()} | {:error, errors()}
  def cast(webhook, attrs, policy, required, extra) do
    {given, errors} = attrs |> to_pairs() |> Enum.reduce({%{}, %{}}, &take(&1, &2, extra))

    {changes, errors} =
      Enum.reduce(given, {%{}, errors}, fn {name, value}, {changes, errors} ->
        case cast_one(name, value, policy) do
          {:ok, cast} -> {Map.put(changes, name, cast), errors}
          {:error, message} -> {changes, Map.put(errors, name, message)}
        end
      end)

    errors = Enum.reduce(required -- Map.keys(given), errors, &Map.put_new(&2, &1, "is required"))
    errors = together(struct!(webhook, Map.delete(changes, :secret)), errors)

    if errors == %{}, do: {:ok, changes}, else: {:error, errors}
  end

  defp to_pairs(attrs) when is_map(attrs) and not is_struct(attrs), do: Map.to_list(attrs)

  defp to_pairs(attrs) when is_list(attrs) do
    if Enum.all?(attrs, &match?({_name, _value}, &1)), do: attrs, else: raise_not_pairs()
  end

  defp to_pairs(_other), do: raise_not_pairs()

  defp raise_not_pairs,
    do: raise(ArgumentError, "the attributes of a webhook must be a map or a keyword list")

  defp take({name, value}, {given, errors}, extra) do
    case known(name, extra) do
      {:ok, known} when is_map_key(given, known) ->
        {given, Map.put(errors, known, "is given twice")}

      {:ok, known} ->
        {Map.put(given, known, value), errors}

      :error ->
        {given, Map.put(errors, name, "is not an attribute that can be set")}
    end
  end

  defp known(name, extra) when is_binary(name) do
    with {:ok, known} <- Map.fetch(@by_string, name), do: known(known, extra)
  end

  defp known(name, extra) when name in [:secret, :version],
    do: if(name in extra, do: {:ok, name}, else: :error)

  defp known(name, _extra) when name in @names, do: {:ok, name}
  defp known(name, _extra) when is_atom(name), do: :error

  defp known(_name, _extra),
    do: raise(ArgumentError, "the names of attributes must be atoms or strings")

  # --- each one

  defp cast_one(:name, value, _policy), do: name(value)
  defp cast_one(:url, value, policy), do: url(value, policy)
  defp cast_one(:enabled, value, _policy), do: boolean(value)
  defp cast_one(:events, value, _policy), do: events(value)
  defp cast_one(:goals, value, _policy), do: goals(value)
  defp cast_one(:headers, value, _policy), do: headers(value)

  defp cast_one(:traffic_min_interval_s, value, _policy), do: integer(value, 0, @interval_s_max)
  defp cast_one(:version, value, _policy), do: integer(value, 0, @integer_max)

  defp cast_one(kind, value, _policy) when kind in [:spike_threshold, :drop_threshold],
    do: threshold(value)

  defp cast_one(:secret, value, _policy) do
    cond do
      value in [nil, ""] ->
        {:ok, nil}

      Secrets.valid?(value) ->
        {:ok, value}

      true ->
        {:error, "must be whsec_ followed by the Base64 of 24 to 64 bytes, or left out"}
    end
  end

  defp name(nil), do: {:ok, ""}

  defp name(value) when is_binary(value) do
    cond do
      # Before any work that grows with it: a character has at most 4 bytes here.
      byte_size(value) > 8 * @name_characters_max or not String.valid?(value) or
          String.length(String.trim(value)) > @name_characters_max ->
        {:error, "must be text of at most #{@name_characters_max} characters"}

      # Control and format characters, line and paragraph separators: what could
      # forge a line in a log or turn the text around it. Persian words and many an emoji
      # need the joiners.
      value =~ ~r/[\p{Cc}\p{Zl}\p{Zp}]|(?![\x{200C}\x{200D}])\p{Cf}/u ->
        {:error, "must not hold control characters"}

      true ->
        {:ok, String.trim(value)}
    end
  end

  defp name(_other), do: {:error, "must be text"}

  defp url(value, policy) do
    with {:ok, %{url: url}} <- URL.check(value, policy), do: {:ok, url}
  end

  defp boolean(value) when value in [true, "true", "1", "on"], do: {:ok, true}
  defp boolean(value) when value in [false, "false", "0", "off"], do: {:ok, false}
  defp boolean(_other), do: {:error, "must be true or false"}

  defp integer(value, min, max) do
    case to_integer(value) do
      {:ok, integer} when integer in min..max//1 -> {:ok, integer}
      _other -> {:error, "must be an integer from #{min} to #{max}"}
    end
  end

  defp threshold(value) when value in [nil, ""], do: {:ok, nil}
  defp threshold(value) when value in [:notifier, "notifier"], do: {:ok, :notifier}

  defp threshold(value) do
    with {:error, text} <- integer(value, 1, @threshold_max),
         do: {:error, text <> ", or notifier"}
  end

  defp to_integer(value) when is_integer(value), do: {:ok, value}

  # No number that may be stored has more digits than that.
  defp to_integer(value) when is_binary(value) and byte_size(value) <= 20 do
    case Integer.parse(value) do
      {integer, ""} -> {:ok, integer}
      _other -> :error
    end
  end

  defp to_integer(_other), do: :error

  defp events(value) do
    known = Event.subscribable_types()

    cond do
      not proper_list?(value) or value == [] ->
        {:error, "must be a list of at least one of #{Enum.join(known, ", ")}"}

      (unknown = Enum.find(value, &(&1 not in known))) != nil ->
        {:error, "#{quoted(unknown)} is none of #{Enum.join(known, ", ")}"}

      # nil is what Enum.find cannot tell from nothing.
      nil in value ->
        {:error, "must not hold nil"}

      true ->
        {:ok, Enum.filter(known, &(&1 in value))}
    end
  end

  defp goals(value) when value in [:all, "all"], do: {:ok, :all}

  defp goals(value) do
    if proper_list?(value) do
      ids = Enum.map(value, &to_integer/1)

      cond do
        length(value) > @goals_max -> {:error, "must be at most #{@goals_max} goals"}
        not Enum.all?(ids, &goal?/1) -> {:error, "must be all, or a list of goal ids"}
        true -> {:ok, ids |> Enum.map(&elem(&1, 1)) |> Enum.uniq()}
      end
    else
      {:error, "must be all, or a list of goal ids"}
    end
  end

  defp goal?({:ok, id}), do: id in 1..@integer_max
  defp goal?(:error), do: false

  defp headers(value) when is_map(value) and not is_struct(value),
    do: value |> Map.to_list() |> headers()

  defp headers(value) do
    with true <- proper_list?(value),
         pairs = Enum.map(value, &header/1),
         false <- :error in pairs do
      case Native.check_headers(pairs) do
        :ok -> {:ok, pairs}
        {:error, {reason, index}} -> {:error, header_message(reason, index)}
      end
    else
      _other -> {:error, "must be a list of names and values, both text"}
    end
  end

  defp header({name, value}), do: header(%{name: name, value: value})
  defp header(%{"name" => name, "value" => value}), do: header(%{name: name, value: value})

  defp header(%{name: name, value: value}) when is_atom(name) and is_binary(value),
    do: {Atom.to_string(name), value}

  defp header(%{name: name, value: value}) when is_binary(name) and is_binary(value),
    do: {name, value}

  defp header(_other), do: :error

  # Neither name nor value is repeated: a value may hold a token.
  @header_messages %{
    too_many_headers: "must be at most 20",
    headers_too_large: "must be at most 12 KiB together",
    duplicate_header: "has a name that was given before",
    reserved_header: "has a name that is reserved",
    invalid_header_name: "has a name that is not valid (letters, digits and - only)",
    invalid_header_value:
      "has a value that is not valid (1 to 4096 visible ASCII characters, spaces inside)"
  }

  defp header_message(reason, _index) when reason in [:too_many_headers, :headers_too_large],
    do: Map.fetch!(@header_messages, reason)

  defp header_message(reason, index),
    do: "header #{index + 1} " <> Map.get(@header_messages, reason, "is not valid (#{reason})")

  defp proper_list?(term), do: is_list(term) and not List.improper?(term)

  # Short and printable.
  defp quoted(value), do: value |> inspect(limit: 3, printable_limit: 40) |> String.slice(0, 60)

  # --- together

  defp together(webhook, errors) do
    errors
    |> needs(webhook, "traffic.spike", :spike_threshold)
    |> needs(webhook, "traffic.drop", :drop_threshold)
    |> resolved(webhook)
    |> some_goal(webhook)
  end

  defp needs(errors, webhook, type, threshold) do
    if type in webhook.events and Map.fetch!(webhook, threshold) == nil,
      do: Map.put_new(errors, threshold, "is required for #{type}"),
      else: errors
  end

  # The host's notifier does not report the end of a breach.
  defp resolved(errors, %{events: events} = webhook) do
    begun =
      for {type, threshold} <- [
            {"traffic.spike", webhook.spike_threshold},
            {"traffic.drop", webhook.drop_threshold}
          ],
          type in events,
          do: threshold

    cond do
      "traffic.resolved" not in events ->
        errors

      begun == [] ->
        Map.put_new(errors, :events, "traffic.resolved needs traffic.spike or traffic.drop")

      Enum.all?(begun, &(&1 == :notifier)) ->
        Map.put_new(errors, :events, "traffic.resolved needs a threshold that is not notifier")

      true ->
        errors
    end
  end

  defp some_goal(errors, webhook) do
    if webhook.goals == [] and "goal.completed" in webhook.events,
      do: Map.put_new(errors, :goals, "must be all, or at least one goal"),
      else: errors
  end
end
