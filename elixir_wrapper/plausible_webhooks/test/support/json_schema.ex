defmodule Plausible.Webhooks.JsonSchema do
  @moduledoc """
  As much of JSON Schema 2020-12 as the schemas under `docs/schemas` use. A keyword
  that it does not know is an error, never ignored.

  Stricter than the standard in one point: a member that the schema does not
  describe is an error too. Receivers must expect new members, our own bodies must
  not have undescribed ones.
  """

  alias Plausible.Webhooks.Native

  @directory Path.expand("../../../../docs/schemas", __DIR__)
  @annotations ~w($schema $id title description examples)

  @doc "The schema of an event type."
  def load!(type) do
    {:ok, schema} = @directory |> Path.join("#{type}.json") |> File.read!() |> Native.decode()
    schema
  end

  @doc "Every schema file's event type."
  def types, do: for(file <- File.ls!(@directory), do: Path.basename(file, ".json"))

  @doc "What is wrong with the JSON text, as a list of `{path, message}`."
  def errors(type, json) when is_binary(json) do
    {:ok, value} = Native.decode(json)
    check(load!(type), value, "")
  end

  @doc "What is wrong with the decoded value."
  def check(schema, value, path) do
    Enum.flat_map(schema, fn {keyword, argument} ->
      keyword(keyword, argument, value, path, schema)
    end)
  end

  defp keyword(keyword, _argument, _value, _path, _schema) when keyword in @annotations, do: []

  defp keyword("type", types, value, path, _schema) do
    if Enum.any?(List.wrap(types), &type?(&1, value)),
      do: [],
      else: [{path, "is not of type #{inspect(types)}: #{inspect(value)}"}]
  end

  defp keyword("const", wanted, value, path, _schema),
    do: if(value === wanted, do: [], else: [{path, "is not #{inspect(wanted)}"}])

  defp keyword("required", names, %{} = object, path, _schema),
    do: for(name <- names, not is_map_key(object, name), do: {"#{path}.#{name}", "is missing"})

  defp keyword("properties", properties, %{} = object, path, schema) do
    for {name, value} <- object, error <- member(properties, name, value, path, schema), do: error
  end

  defp keyword("additionalProperties", %{} = more, %{} = object, path, schema) do
    for {name, value} <- object,
        not is_map_key(schema["properties"] || %{}, name),
        error <- check(more, value, "#{path}.#{name}"),
        do: error
  end

  defp keyword("items", items, list, path, _schema) when is_list(list) do
    for {value, n} <- Enum.with_index(list),
        error <- check(items, value, "#{path}[#{n}]"),
        do: error
  end

  defp keyword("minItems", min, list, path, _schema) when is_list(list),
    do: if(length(list) >= min, do: [], else: [{path, "has too few items"}])

  defp keyword("minLength", min, text, path, _schema) when is_binary(text),
    do: if(String.length(text) >= min, do: [], else: [{path, "is too short"}])

  defp keyword("minimum", min, number, path, _schema) when is_number(number),
    do: if(number >= min, do: [], else: [{path, "is below #{min}"}])

  defp keyword("pattern", pattern, text, path, _schema) when is_binary(text),
    do: if(text =~ Regex.compile!(pattern), do: [], else: [{path, "does not match: #{text}"}])

  defp keyword("format", "date-time", text, path, _schema) when is_binary(text) do
    case DateTime.from_iso8601(text) do
      {:ok, _time, 0} -> []
      _other -> [{path, "is no time in UTC: #{text}"}]
    end
  end

  # What a keyword does not apply to passes it.
  defp keyword(keyword, _argument, _value, _path, _schema)
       when keyword in ~w(required properties additionalProperties items minItems
                          minLength minimum pattern format),
       do: []

  defp keyword(keyword, _argument, _value, path, _schema),
    do: [{path, "the validator does not know #{keyword}"}]

  defp member(properties, name, value, path, schema) do
    case properties do
      %{^name => member} ->
        check(member, value, "#{path}.#{name}")

      _other ->
        if is_map(schema["additionalProperties"]),
          do: [],
          else: [{"#{path}.#{name}", "is not described"}]
    end
  end

  defp type?("object", value), do: is_map(value)
  defp type?("array", value), do: is_list(value)
  defp type?("string", value), do: is_binary(value)
  defp type?("integer", value), do: is_integer(value)
  defp type?("number", value), do: is_number(value)
  defp type?("null", value), do: value == nil
end
