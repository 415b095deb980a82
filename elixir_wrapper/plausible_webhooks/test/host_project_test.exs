defmodule Plausible.Webhooks.HostProjectTest do
  # A small application that depends on this project, in a folder of its own, with
  # the commands and the release that its developers run. It takes the C++ build of
  # this project, so that only Elixir is compiled.
  use ExUnit.Case, async: false

  @moduletag :host
  @moduletag timeout: 600_000

  @project Path.expand("..", __DIR__)
  @top Path.expand("../..", @project)
  @native "plausible_webhooks_nif.so"

  # As with Ecto, a fetched dependency brings a task, and this task starts what neither
  # the host nor this project names.
  @driver %{
    "mix.exs" => """
    defmodule Driver.MixProject do
      use Mix.Project

      def project, do: [app: :driver, version: "0.1.0"]
      def application, do: [extra_applications: [:ssl]]
    end
    """,
    "lib/mix/tasks/driver.migrate.ex" => """
    defmodule Mix.Tasks.Driver.Migrate do
      use Mix.Task

      @impl true
      def run(args) do
        {:ok, _started} = Application.ensure_all_started(:driver)
        Mix.Task.run("app.config", args)
      end
    end
    """
  }

  @host %{
    ".formatter.exs" => ~s([inputs: ["mix.exs", "{lib,test}/**/*.{ex,exs}"]]\n),
    "lib/shop/application.ex" => """
    defmodule Shop.Application do
      use Application

      @impl true
      def start(_type, _args) do
        children =
          case System.get_env("SHOP") do
            "instance" -> [{Plausible.Webhooks, []}]
            "boot" -> [{Task, &System.stop/0}]
            "check" -> [{Task, &Shop.check_and_stop/0}]
            nil -> []
          end

        Supervisor.start_link(children, strategy: :one_for_one)
      end
    end
    """,
    "lib/shop.ex" => """
    defmodule Shop do
      alias Plausible.Webhooks.Native

      def check_and_stop do
        :embedded = :code.get_mode()
        IO.puts("not loaded: \#{inspect(not_loaded())}")
        IO.puts("calls into: \#{inspect(calls_into_nothing())}")
        IO.puts("store: \#{inspect(store())}")
        IO.puts("delivery: \#{inspect(deliver())}")
        System.stop(0)
      end

      defp modules, do: Application.spec(:plausible_webhooks, :modules)

      defp not_loaded, do: Enum.reject(modules(), &:erlang.module_loaded/1)

      # Modules that are called and are in no application of the release. Mix tasks and the
      # help for tests do not run in one.
      defp calls_into_nothing do
        for module <- modules(),
            name = inspect(module),
            not String.starts_with?(name, ["Mix.Tasks.", "Plausible.Webhooks.Testing"]),
            {:ok, {_, [imports: imports]}} = :beam_lib.chunks(:code.which(module), [:imports]),
            {called, _function, _arity} <- imports,
            not :erlang.module_loaded(called),
            uniq: true,
            do: called
      end

      defp store do
        Process.flag(:trap_exit, true)
        path = Path.join(System.tmp_dir!(), "shop_\#{System.pid()}.db")
        {:ok, _pid} = Demo.Host.start_link([])

        Plausible.Webhooks.start_link(
          store: {Plausible.Webhooks.Store.SQLite, path: path},
          host: {Demo.Host, Demo.Host}
        )
      end

      def deliver do
        {:ok, listener} = :gen_tcp.listen(0, [:binary, active: false, ip: {127, 0, 0, 1}])
        {:ok, port} = :inet.port(listener)
        receiver = Task.async(fn -> answer(listener) end)

        {:ok, engine} =
          Native.engine_start(%{policy: %{https_only: false, allow: ["127.0.0.0/8:*"]}})

        {:ok, secret} = Native.generate_secret()
        endpoint = %{webhook_id: "wh_1", url: "http://127.0.0.1:\#{port}/", keys: [secret]}
        :ok = Native.put_endpoint(engine, endpoint)
        {:ok, 1} = Native.submit(engine, [%{id: "msg_1", webhook_id: "wh_1", body: "{}"}])
        attempt = attempt(engine)
        {:ok, []} = Native.engine_stop(engine, 0)
        "POST / HTTP/1.1" <> _rest = Task.await(receiver)
        attempt.state
      end

      defp answer(listener) do
        {:ok, socket} = :gen_tcp.accept(listener)
        {:ok, request} = :gen_tcp.recv(socket, 0)
        :ok = :gen_tcp.send(socket, "HTTP/1.1 204 No Content\\r\\n\\r\\n")
        request
      end

      defp attempt(engine) do
        case Native.run_once(engine, 100) do
          {:ok, [attempt]} -> attempt
          {:ok, []} -> attempt(engine)
        end
      end
    end
    """,
    "lib/host.ex" => File.read!(Path.expand("../../../examples/host/host.ex", __DIR__)),
    "test/test_helper.exs" => "ExUnit.start()\n",
    "test/shop_test.exs" => """
    defmodule ShopTest do
      use ExUnit.Case

      test "a delivery arrives" do
        assert Shop.deliver() == :delivered
      end
    end
    """
  }

  setup_all do
    folder = Path.join(System.tmp_dir!(), "webhooks_host_#{System.pid()}")
    on_exit(fn -> File.rm_rf!(folder) end)
    write(Path.join(folder, "driver"), @driver)
    commit(Path.join(folder, "driver"))
    {:ok, folder: folder}
  end

  defp write(folder, files) do
    for {name, text} <- files do
      path = Path.join(folder, name)
      File.mkdir_p!(Path.dirname(path))
      source? = Path.extname(name) in ~w(.ex .exs)
      File.write!(path, if(source?, do: [Code.format_string!(text), "\n"], else: text))
    end
  end

  defp commit(folder) do
    author = ~w(-c user.name=a -c user.email=a@example.com -c commit.gpgsign=false)

    for args <- [~w(init -q), ~w(add .), author ++ ~w(commit -q -m all)],
        do: {_output, 0} = System.cmd("git", args, cd: folder, stderr_to_stdout: true)
  end

  defp host(folder, name, dependency) do
    mixfile = """
    defmodule Shop.MixProject do
      use Mix.Project

      def project do
        [
          app: :shop,
          version: "0.1.0",
          deps: [
            {:driver, git: "file://#{folder}/driver"},
            {:plausible_webhooks,
             #{dependency}}
          ]
        ]
      end

      def application, do: [mod: {Shop.Application, []}, extra_applications: [:logger]]
    end
    """

    host = Path.join(folder, name)
    write(host, Map.put(@host, "mix.exs", mixfile))
    host
  end

  # As from a shell of its own, save for the build of C++.
  defp mix(host, args) do
    cache =
      System.get_env("WEBHOOKS_NATIVE_CACHE") ||
        Path.join(Path.dirname(Mix.Project.build_path()), "plausible_webhooks_native")

    cleared = for name <- ~w(MIX_BUILD_PATH MIX_DEPS_PATH MIX_EXS MIX_TARGET), do: {name, nil}
    # One environment for all commands: each would compile everything again.
    env = [{"MIX_ENV", "test"}, {"WEBHOOKS_NATIVE_CACHE", cache} | cleared]
    System.cmd("mix", args, cd: host, env: env, stderr_to_stdout: true)
  end

  defp assert_commands_work(host) do
    for command <- [
          "deps.get",
          "format --check-formatted",
          "compile --warnings-as-errors",
          "driver.migrate",
          "run -e :delivered=Shop.deliver()",
          "test",
          "release --quiet --overwrite"
        ] do
      assert {output, 0} = mix(host, String.split(command))
      refute output =~ "Building CXX", "mix #{command} compiled C++ again"
    end
  end

  test "the commands of a host that depends on us by path:", %{folder: folder} do
    host = host(folder, "by_path", "path: #{inspect(@project)}")
    assert_commands_work(host)
  end

  test "the commands of a host that depends on us by git: and subdir:", %{folder: folder} do
    repository = Path.join(folder, "repository")
    project = Path.relative_to(@project, @top)

    for name <-
          ~w(VERSION CMakeLists.txt cmake c_src include) ++
            Enum.map(~w(lib mix_compiler mix.exs .formatter.exs), &Path.join(project, &1)) do
      File.mkdir_p!(Path.dirname(Path.join(repository, name)))
      File.cp_r!(Path.join(@top, name), Path.join(repository, name))
    end

    commit(repository)
    git = "git: #{inspect("file://" <> repository)}, subdir: #{inspect(project)}"
    assert_commands_work(host(folder, "by_git", git))
  end

  describe "a release, which loads every module at boot," do
    setup %{folder: folder} do
      host = host(folder, "by_path", "path: #{inspect(@project)}")
      assert {_output, 0} = mix(host, ~w(do deps.get + compile))
      # What is left of a build without the headers of SQLite.
      built = Path.join(host, "_build/test/lib/plausible_webhooks/priv")
      File.rm_rf!(Path.join(built, "plausible_webhooks_sqlite.so"))
      assert {_output, 0} = mix(host, ~w(release --quiet --overwrite))
      {:ok, release: Path.join(host, "_build/test/rel/shop")}
    end

    defp start(release, as) do
      System.cmd(Path.join(release, "bin/shop"), ["start"],
        env: [{"SHOP", as}, {"RELEASE_DISTRIBUTION", "none"}],
        stderr_to_stdout: true
      )
    end

    test "boots and delivers without SQLite, and says what it lacks", %{release: release} do
      assert {output, 0} = start(release, "check")
      assert output =~ "not loaded: []"
      assert output =~ "calls into: []"
      assert output =~ "delivery: :delivered"
      assert [_, store] = Regex.run(~r/store: (.+)/, output)
      assert store =~ "sqlite_not_available"
      assert store =~ "apt-get install libsqlite3-dev"

      # The image lacks libcurl: the host lives, an instance does not start.
      [library] = Path.wildcard(Path.join(release, "lib/plausible_webhooks-*/priv/#{@native}"))
      bytes = File.read!(library)
      assert bytes =~ "libcurl.so.4"
      File.write!(library, :binary.replace(bytes, "libcurl.so.4", "libcurl.so.9", [:global]))
      assert {_output, 0} = start(release, "boot")
      assert {output, 1} = start(release, "instance")
      assert output =~ "libcurl.so.9: cannot open shared object file"
      assert output =~ "apt-get install libcurl9"
    end
  end
end
