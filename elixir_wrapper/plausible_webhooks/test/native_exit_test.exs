defmodule Plausible.Webhooks.NativeExitTest do
  # The VM does not wait for NIFs when it ends, and OpenSSL frees its tables while
  # they run: without the gate and the parked loop this dies with SIGSEGV. First
  # every NIF that uses OpenSSL or curl, then the whole application on SQLite.
  use ExUnit.Case, async: false

  alias Plausible.Webhooks.Test.TlsTarget

  @runs String.to_integer(System.get_env("WEBHOOKS_EXIT_RUNS", "4"))
  @moduletag timeout: 600_000

  setup_all do
    {:ok, _} = Application.ensure_all_started(:ssl)
    dir = Path.join(System.tmp_dir!(), "webhooks-exit-#{System.unique_integer([:positive])}")
    File.mkdir_p!(dir)
    on_exit(fn -> File.rm_rf!(dir) end)
    %{target: TlsTarget.start!(dir), dir: dir}
  end

  for script <- ~w(exit_under_load application_exit), how <- ~w(init_stop halt halt_noflush) do
    test "#{script}: #{how} under full load with TLS ends the VM with status 0", context do
      results = for run <- 1..@runs, do: run_vm(unquote(script), unquote(how), run, context)
      assert Enum.all?(results, &match?({_output, 0}, &1)), inspect(results)
      assert Path.wildcard(Path.join(context.dir, "core*")) == []
    end
  end

  defp run_vm(script, how, run, %{target: target, dir: dir}) do
    script = Path.expand("support/scripts/#{script}.exs", __DIR__)
    paths = Enum.flat_map(:code.get_path(), &["-pa", to_string(&1)])
    # Different moments, so that the end meets different work.
    after_ms = Integer.to_string(rem(run * 37, 120))
    arguments = paths ++ [script, how, "#{target.port}", target.ca_file, after_ms]

    {output, status} =
      System.cmd("elixir", arguments,
        cd: dir,
        stderr_to_stdout: true,
        env: [{"ERL_CRASH_DUMP_SECONDS", "0"}]
      )

    {String.slice(output, 0, 2_000), status}
  end
end
