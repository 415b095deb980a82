defmodule Plausible.Webhooks.AlertsTest do
  # The alert rules, judged by Prometheus' own tool: each fires on its fault and clears after.
  use ExUnit.Case, async: true

  @folder Path.expand("../../../docs/monitoring", __DIR__)
  @operations Path.expand("../../../docs/operations.md", __DIR__)

  test "each alert fires on its fault, and clears after it" do
    if promtool = System.find_executable("promtool") do
      arguments = ["test", "rules", "alerts_test.yml"]
      {said, status} = System.cmd(promtool, arguments, cd: @folder, stderr_to_stdout: true)
      assert {status, said =~ "SUCCESS"} == {0, true}, said
    else
      IO.puts("\nthe alert rules were not tested: promtool (Debian: prometheus) is not installed")
    end
  end

  test "each alert has a test and a section in operations.md" do
    rules = File.read!(Path.join(@folder, "alerts.yml"))
    tests = File.read!(Path.join(@folder, "alerts_test.yml"))
    operations = File.read!(@operations)

    for [_all, alert] <- Regex.scan(~r/- alert: (\w+)/, rules) do
      assert tests =~ "alertname: #{alert}"
      assert operations =~ "### #{alert}\n"
    end
  end
end
