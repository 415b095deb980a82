defmodule Plausible.Webhooks.PromExTest do
  use ExUnit.Case, async: true

  alias Plausible.Webhooks.{PromEx, Telemetry}

  @documented Code.fetch_docs(PromEx) |> elem(4) |> Map.fetch!("en")

  defp events, do: PromEx.event_metrics([])
  defp polling(options \\ []), do: PromEx.polling_metrics(options)

  defp metrics,
    do: Enum.flat_map(events(), & &1.metrics) ++ Enum.flat_map(polling(), & &1.metrics)

  test "every metric is of an event that the telemetry documents, with its measurement" do
    documented = Code.fetch_docs(Telemetry) |> elem(4) |> Map.fetch!("en")

    for metric <- metrics() do
      row =
        documented
        |> String.split("\n")
        |> Enum.find(&String.starts_with?(&1, "| `#{inspect(metric.event_name)}` |"))

      assert row, "#{inspect(metric.event_name)} is not documented"
      [_, _event, measurements, metadata | _] = String.split(row, "|")

      # A counter counts events.
      unless is_struct(metric, Elixir.Telemetry.Metrics.Counter) do
        # With a converted unit it is a function, whose name says which.
        measured = if is_atom(metric.measurement), do: metric.measurement, else: :duration
        assert measurements =~ to_string(measured)
      end

      for tag <- metric.tags, do: assert(metadata =~ to_string(tag))
      for tag <- metric.tags, do: refute(tag in [:site_id, :webhook_id, :host, :delivery_id])
    end
  end

  test "every metric is in the table of the module" do
    for metric <- metrics() do
      name = Enum.join(metric.name, "_")
      "plausible_webhooks_" <> last = name
      short = last |> String.split("_", parts: 2) |> List.last()
      assert @documented =~ name or @documented =~ "`_#{short}`", "#{name} is missing"
    end
  end

  test "the gauges are measured by the telemetry, for the instance and as often as asked" do
    assert [
             %{poll_rate: 10_000, measurements_mfa: {Telemetry, :measure, [Plausible.Webhooks]}},
             %{poll_rate: 60_000, measurements_mfa: {Telemetry, :queue, [Plausible.Webhooks]}}
           ] = polling()

    assert [%{poll_rate: 5, measurements_mfa: {module, function, [:x] = arguments}}, _queue] =
             polling(poll_rate: 5, instance: :x)

    assert apply(module, function, arguments) == :ok
    assert PromEx.manual_metrics([]) == []
  end
end
