defmodule Plausible.Webhooks.MixCompiler.CMake do
  @moduledoc false
  # Runs CMake for Mix.Tasks.Compile.WebhooksNative: finds the tools, holds the
  # locks, turns what the compilers say into diagnostics.

  alias Mix.Task.Compiler.Diagnostic

  @target "plausible_webhooks_nif"

  @doc """
  Configures and builds the NIF of `wanted`. With `keep?`, what an earlier build left
  in its folder is used as far as it serves.
  """
  @spec build(map(), boolean()) :: {:ok, [Diagnostic.t()]} | {:error, [Diagnostic.t()]}
  def build(wanted, keep?) do
    with :ok <- check_tools(wanted),
         :ok <- configure(wanted, keep?) do
      compile(wanted)
    end
  end

  @spec diagnostic(:warning | :error, String.t(), Path.t(), non_neg_integer()) :: Diagnostic.t()
  def diagnostic(severity, message, file \\ Path.expand("../mix.exs", __DIR__), line \\ 0) do
    %Diagnostic{
      compiler_name: "webhooks_native",
      severity: severity,
      message: message,
      file: file,
      position: line
    }
  end

  defp fail(lines, diagnostics \\ [], message) do
    Mix.shell().error(Enum.join(lines ++ [message], "\n"))
    {:error, diagnostics ++ [diagnostic(:error, message)]}
  end

  # What CMake cannot name itself when it is missing.
  defp check_tools(wanted) do
    needs = [
      {System.find_executable("cmake"), "CMake 3.22 or newer", "cmake", "cmake"},
      {generator(), "Ninja or Make", "ninja-build", "ninja"},
      {compiler(), "a C++20 compiler (GCC 11 or Clang 14, or newer)", "g++", "g++"},
      {wanted.nif_include, "erl_nif.h, from the Erlang that runs Mix", "erlang-dev", "erlang-dev"}
    ]

    missing =
      for {nil, what, debian, alpine} <- needs do
        """
          #{what}
            Debian, Ubuntu:  apt-get install #{debian}
            Alpine:          apk add #{alpine}
        """
      end

    if missing == [] do
      :ok
    else
      message =
        "plausible_webhooks is built from C++ and needs what this machine does not have:\n"

      fail([], message <> Enum.join(missing))
    end
  end

  defp compiler do
    System.get_env("CXX") || System.get_env("CMAKE_TOOLCHAIN_FILE") ||
      Enum.find_value(~w(c++ g++ clang++), &System.find_executable/1)
  end

  defp generator do
    cond do
      name = System.get_env("CMAKE_GENERATOR") -> name
      System.find_executable("ninja") -> "Ninja"
      System.find_executable("make") -> "Unix Makefiles"
      true -> nil
    end
  end

  defp configure(%{cmake_dir: dir} = wanted, keep?) do
    kept? = keep? and File.regular?(Path.join(dir, "CMakeCache.txt"))
    if not kept?, do: File.rm_rf!(dir)
    File.mkdir_p!(dir)
    often = if kept?, do: "", else: "; the first time takes a minute or more"
    Mix.shell().info("Building #{@target}.so (CMake, #{generator()}#{often})")

    args =
      ["-S", wanted.source, "-B", dir, "-G", generator(), "-DWEBHOOKS_BUILD_NIF=ON"] ++
        ["-DERL_NIF_INCLUDE_DIR=#{wanted.nif_include}"] ++
        ["-DWEBHOOKS_WERROR=#{if wanted.werror, do: "ON", else: "OFF"}"] ++ wanted.args

    case run(wanted, args) do
      {0, _lines} ->
        :ok

      # What the cache remembers may be gone.
      {_status, _lines} when kept? ->
        configure(wanted, false)

      {_status, lines} ->
        from_error = Enum.drop_while(lines, &(not String.starts_with?(&1, "CMake Error")))

        fail(
          if(from_error == [], do: lines, else: from_error),
          "plausible_webhooks: CMake could not prepare the build"
        )
    end
  end

  defp compile(wanted) do
    jobs = System.get_env("CMAKE_BUILD_PARALLEL_LEVEL") || "#{System.schedulers_online()}"
    args = ["--build", wanted.cmake_dir, "--target", @target, "--parallel", jobs]
    {status, lines} = run(wanted, args)
    told = Enum.reject(lines, &progress?/1)
    diagnostics = Enum.flat_map(told, &parse_diagnostic/1)

    cond do
      status != 0 ->
        fail(told, diagnostics, "plausible_webhooks: the C++ code did not compile")

      diagnostics == [] ->
        {:ok, []}

      true ->
        Mix.shell().error(Enum.join(told, "\n"))
        {:ok, diagnostics}
    end
  end

  # CMake has a lock of its own: it outlives a mix that is killed, and the next
  # mix must not start a second one in the same folder.
  defp run(wanted, args) do
    cmake = System.find_executable("cmake")

    {executable, args} =
      case System.find_executable("flock") do
        nil -> {cmake, args}
        flock -> {flock, [lock_path(wanted.cache, "cmake"), cmake | args]}
      end

    port =
      Port.open({:spawn_executable, executable}, [
        :binary,
        :exit_status,
        :stderr_to_stdout,
        {:line, 65_536},
        args: args
      ])

    collect(port, [], "", System.monotonic_time(:second))
  end

  # The lines come back when it has ended; meanwhile a long build shows how far
  # it is.
  defp collect(port, lines, partial, told_at) do
    receive do
      {^port, {:data, {:noeol, part}}} ->
        collect(port, lines, partial <> part, told_at)

      {^port, {:data, {:eol, part}}} ->
        line = partial <> part
        now = System.monotonic_time(:second)
        tell? = progress?(line) and now - told_at >= 5
        if tell?, do: Mix.shell().info("  " <> line)
        collect(port, [line | lines], "", if(tell?, do: now, else: told_at))

      {^port, {:exit_status, status}} ->
        {status, Enum.reverse(lines)}
    end
  end

  # Ninja: "[3/20] Building ..."; Make: "[ 15%] Building ...".
  defp progress?(line), do: line =~ ~r/^\[\s*\d+(%|\/\d+)\]/

  defp parse_diagnostic(line) do
    case Regex.run(~r/^(\/[^:]+):(\d+):(?:\d+:)? (warning|error|fatal error): (.+)$/, line) do
      [_, file, number, kind, message] ->
        severity = if kind == "warning", do: :warning, else: :error
        [diagnostic(severity, message, file, String.to_integer(number))]

      nil ->
        []
    end
  end

  @doc """
  Runs `fun` while no other mix builds in `cache`.

  The lock that Mix has since 1.18 is one per environment. The kernel lets go of the
  lock of flock(1) however the holder ends. Without flock we go on: a lock file that
  a killed mix leaves behind would be worse.
  """
  @spec with_lock(Path.t(), (() -> result)) :: result when result: term()
  def with_lock(cache, fun) do
    case System.find_executable("flock") do
      nil ->
        fun.()

      flock ->
        args = [lock_path(cache, "mix"), "sh", "-c", "echo locked; exec cat >/dev/null"]
        port = Port.open({:spawn_executable, flock}, [:binary, :exit_status, args: args])
        await_lock(port, 1_000)

        try do
          fun.()
        after
          # Its input ends, cat ends, the lock is free.
          if Port.info(port), do: Port.close(port)
        end
    end
  end

  defp await_lock(port, patience_ms) do
    receive do
      {^port, {:data, _locked}} -> :ok
      {^port, {:exit_status, _no_locks_here}} -> :ok
    after
      patience_ms ->
        Mix.shell().info("Waiting for another mix that builds #{@target}.so")
        await_lock(port, :infinity)
    end
  end

  # Beside the folders that mix clean removes: a lock must not be replaced by a new
  # file while somebody holds it.
  defp lock_path(cache, whose) do
    File.mkdir_p!(cache)
    Path.join(cache, ".#{whose}.lock")
  end
end
