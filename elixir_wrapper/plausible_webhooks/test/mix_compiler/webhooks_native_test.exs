defmodule Mix.Tasks.Compile.WebhooksNativeTest do
  # The real compiler on a small source tree, with a CMake that only writes down
  # how it is called: what is tested is when it is called and what comes of it.
  # Not async: PATH, the environment and the working folder belong to the VM.
  use ExUnit.Case, async: false

  @compiler Mix.Tasks.Compile.WebhooksNativeFixture
  @compile {:no_warn_undefined, @compiler}
  @library "lib/native_fixture/priv/plausible_webhooks_nif.so"
  @source "c_src/nif/nif.cpp"

  @cmake """
  #!/bin/sh
  echo "$*" >> "$FAKE/calls"
  case "$1" in
    -S)
      if [ -f "$FAKE/refuse_$(test -f "$4/CMakeCache.txt" && echo kept || echo new)" ]; then
        echo "-- looking"; echo "CMake Error at x.cmake:1"; echo "  needs libfoo"; exit 1
      fi
      echo "CMAKE_CXX_COMPILER:FILEPATH=$FAKE/compiler" > "$4/CMakeCache.txt" ;;
    --build)
      [ ! -f "$FAKE/hook" ] || . "$FAKE/hook"
      echo "[1/2] Building CXX object nif.cpp.o"
      [ ! -f "$FAKE/says" ] || cat "$FAKE/says"
      [ ! -f "$FAKE/breaks" ] || exit 1
      mkdir -p "$2/c_src/nif" && date +%s%N > "$2/c_src/nif/plausible_webhooks_nif.so" ;;
  esac
  """

  @mixfile """
  defmodule NativeFixture.MixProject do
    use Mix.Project
    def project, do: [app: :native_fixture, version: "0.1.0"]
  end
  """

  setup_all do
    root = Path.join(System.tmp_dir!(), "webhooks_native_test_#{System.pid()}")
    on_exit(fn -> File.rm_rf!(root) end)
    project = Path.join(root, "repo/wrapper/app")
    File.mkdir_p!(Path.join(project, "mix_compiler"))
    File.write!(Path.join(project, "mix.exs"), @mixfile)

    for file <- ~w(cmake.exs webhooks_native.exs) do
      renamed =
        File.read!(Path.expand("../../mix_compiler/#{file}", __DIR__))
        |> String.replace(~r/(Compile\.WebhooksNative|MixCompiler\.CMake)\b/, "\\1Fixture")
        |> String.replace(
          "MixCompiler.CMakeFixture\n\n",
          "MixCompiler.CMakeFixture, as: CMake\n\n"
        )

      File.write!(Path.join([project, "mix_compiler", file]), renamed)
    end

    Code.require_file(Path.join(project, "mix_compiler/webhooks_native.exs"))
    {:ok, root: root, repo: Path.join(root, "repo"), project: project}
  end

  setup %{root: root, repo: repo, project: project} do
    fake = Path.join(root, "fake")
    made = Path.wildcard("#{project}/{build*,plausible_webhooks_native}")
    for dir <- [fake, "#{root}/cache", "#{repo}/c_src" | made], do: File.rm_rf!(dir)
    for dir <- ["#{fake}/bin", "#{repo}/c_src/nif"], do: File.mkdir_p!(dir)
    File.write!("#{repo}/CMakeLists.txt", "top")
    File.write!("#{repo}/c_src/nif/CMakeLists.txt", "nif")
    File.write!("#{repo}/#{@source}", "int a;")
    File.write!("#{fake}/compiler", "v1")
    File.write!("#{fake}/bin/cmake", @cmake)
    File.chmod!("#{fake}/bin/cmake", 0o755)
    for path <- Path.wildcard("#{repo}/**/*.{txt,cpp}"), do: File.touch!(path, 1_700_000_000)

    put_env("PATH", "#{fake}/bin:#{System.get_env("PATH")}")
    put_env("FAKE", fake)
    put_env("MIX_BUILD_PATH", Path.join(project, "build"))
    put_env("WEBHOOKS_CMAKE_ARGS", nil)
    put_env("WEBHOOKS_NATIVE_CACHE", nil)
    put_env("CXX", nil)
    shell = Mix.shell()
    Mix.shell(Mix.Shell.Process)
    on_exit(fn -> Mix.shell(shell) end)
    {:ok, fake: fake, library: Path.join([project, "build", @library])}
  end

  defp put_env(name, value) do
    before = System.get_env(name)
    on_exit(fn -> set_env(name, before) end)
    set_env(name, value)
  end

  defp set_env(name, nil), do: System.delete_env(name)
  defp set_env(name, value), do: System.put_env(name, value)

  defp in_fixture(project, fun),
    do: Mix.Project.in_project(:native_fixture, project, fn _module -> fun.() end)

  defp run(project, args \\ []), do: in_fixture(project, fn -> @compiler.run(args) end)

  # The calls since the last look.
  defp calls(fake) do
    path = Path.join(fake, "calls")

    lines =
      if File.exists?(path), do: path |> File.read!() |> String.split("\n", trim: true), else: []

    File.rm(path)
    lines
  end

  defp builds(fake), do: Enum.count(calls(fake), &String.starts_with?(&1, "--build"))

  @sqlite "plausible_webhooks_sqlite.so"
  defp with_sqlite(fake) do
    script = ~s(mkdir -p "$2/c_src/nif" && touch "$2/c_src/nif/#{@sqlite}")
    File.write!("#{fake}/hook", script)
  end

  defp cached(project, kind),
    do: Path.wildcard(Path.join(project, "plausible_webhooks_native/#{kind}-*"))

  # In CMake's folder, which is removed for a build from scratch.
  defp mark(project),
    do: for(dir <- cached(project, "cmake"), do: File.write!(Path.join(dir, "marker"), ""))

  defp marked?(calls) do
    ["-S", _source, "-B", dir | _] = calls |> hd() |> String.split()
    File.exists?(Path.join(dir, "marker"))
  end

  defp errors(acc \\ []) do
    receive do
      {:mix_shell, :error, [text]} -> errors([text | acc])
    after
      0 -> Enum.join(Enum.reverse(acc), "\n")
    end
  end

  test "builds once, then has nothing to do", %{project: project, fake: fake, library: library} do
    assert {:ok, []} = run(project)
    assert [configure, build] = calls(fake)
    assert configure =~ "-DERL_NIF_INCLUDE_DIR=#{:code.root_dir()}"
    assert build =~ "--target plausible_webhooks_nif"
    assert File.regular?(library)
    assert :noop = run(project)
    assert [] = calls(fake)
  end

  test "the library of the embedded store is there where it was built", context do
    %{project: project, fake: fake, library: library} = context
    sqlite = Path.join(Path.dirname(library), @sqlite)
    {:ok, []} = run(project)
    refute File.exists?(sqlite)

    with_sqlite(fake)
    {:ok, []} = run(project, ["--force"])
    assert File.exists?(sqlite)

    File.rm!("#{fake}/hook")
    {:ok, []} = run(project, ["--force"])
    refute File.exists?(sqlite)
  end

  describe "builds are shared:" do
    test "the second environment compiles nothing", %{project: project, fake: fake} = context do
      with_sqlite(fake)
      {:ok, []} = run(project)
      calls(fake)

      put_env("MIX_BUILD_PATH", Path.join(project, "build_prod"))
      assert {:ok, []} = run(project)
      assert calls(fake) == []
      other = Path.join([project, "build_prod", @library])
      assert File.read!(other) == File.read!(context.library)
      assert File.exists?(Path.join(Path.dirname(other), @sqlite))
      assert :noop = run(project)

      put_env("MIX_BUILD_PATH", Path.join(project, "build_test"))
      File.write!("#{fake}/compiler", "version 2")
      assert {:ok, []} = run(project)
      assert builds(fake) == 1
    end

    test "sources that come back are not compiled again", context do
      %{project: project, repo: repo, fake: fake} = context
      with_sqlite(fake)

      for text <- ["int a;", "int b;"] do
        File.write!("#{repo}/#{@source}", text)
        {:ok, []} = run(project)
      end

      calls(fake)
      File.write!("#{repo}/#{@source}", "int a;")
      assert {:ok, []} = run(project)
      assert calls(fake) == []
    end

    test "without SQLite CMake looks for it again, in its old folder", context do
      %{project: project, fake: fake} = context
      {:ok, []} = run(project)
      calls(fake)
      mark(project)
      put_env("MIX_BUILD_PATH", Path.join(project, "build_prod"))
      assert {:ok, []} = run(project)
      assert [_configure, _build] = calls = calls(fake)
      assert marked?(calls)
    end

    test "in a folder of one's own, by several projects", context do
      %{project: project, fake: fake, root: root} = context
      with_sqlite(fake)
      put_env("WEBHOOKS_NATIVE_CACHE", Path.join(root, "cache"))
      {:ok, []} = run(project)
      assert cached(project, "cmake") == []
      calls(fake)
      put_env("MIX_BUILD_PATH", Path.join(root, "cache/elsewhere/build"))
      assert {:ok, []} = run(project)
      assert calls(fake) == []
    end

    test "an empty variable names no folder", %{project: project} do
      put_env("WEBHOOKS_NATIVE_CACHE", "")
      {:ok, []} = run(project)
      assert [_dir] = cached(project, "cmake")
    end

    test "in a folder that cannot be made, the error says so", %{project: project, fake: fake} do
      put_env("WEBHOOKS_NATIVE_CACHE", "#{fake}/compiler/cache")
      assert {:error, [%{message: message}]} = run(project)
      assert message =~ "#{fake}/compiler/cache\": not a directory (WEBHOOKS_NATIVE_CACHE"
      assert errors() == message
    end

    test "the oldest are removed", %{project: project, fake: fake} do
      with_sqlite(fake)

      for n <- 1..5 do
        put_env("WEBHOOKS_CMAKE_ARGS", "-DN=#{n}")
        {:ok, []} = run(project)
        time = 1_700_000_000 + n

        for kind <- ~w(cmake lib), dir <- cached(project, kind) do
          manifest = Path.join(dir, "manifest")
          if File.stat!(manifest, time: :posix).mtime > time, do: File.touch!(manifest, time)
        end
      end

      assert length(cached(project, "cmake")) == 3
      assert length(cached(project, "lib")) == 3
      calls(fake)
      put_env("MIX_BUILD_PATH", Path.join(project, "build_prod"))
      assert {:ok, []} = run(project)
      assert calls(fake) == []
    end
  end

  test "a new time is no new content, a new content is one at any time", context do
    %{project: project, repo: repo, fake: fake} = context
    {:ok, []} = run(project)
    File.touch!("#{repo}/#{@source}")
    assert :noop = run(project)

    # Same size and same time, and that time no older than the build.
    time = System.os_time(:second) + 60
    File.touch!("#{repo}/#{@source}", time)
    {:ok, []} = run(project, ["--force"])
    mark(project)
    calls(fake)
    File.write!("#{repo}/#{@source}", "int b;")
    File.touch!("#{repo}/#{@source}", time)
    assert {:ok, []} = run(project)
    assert [_configure, _build] = calls = calls(fake)
    assert marked?(calls), "a source that changed is no reason to start afresh"
  end

  test "a file that comes or goes is a change", %{project: project, repo: repo} do
    {:ok, []} = run(project)
    File.write!("#{repo}/c_src/new.hpp", "")
    assert {:ok, []} = run(project)
    assert :noop = run(project)
    File.rm!("#{repo}/c_src/new.hpp")
    assert {:ok, []} = run(project)
    File.write!("#{repo}/CMakeLists.txt", "TOP")
    assert {:ok, []} = run(project)
    assert :noop = run(project)
  end

  test "an edit while the compiler runs is built by the next run", context do
    %{project: project, repo: repo, fake: fake} = context
    File.write!("#{fake}/hook", "echo 'int c;' > #{repo}/#{@source}; rm $FAKE/hook")
    assert {:ok, []} = run(project)
    assert {:ok, []} = run(project)
    assert :noop = run(project)
  end

  test "what was edited while the compiler ran serves neither version", context do
    %{project: project, repo: repo, fake: fake} = context
    hook = "echo 'int c;' > #{repo}/#{@source}; rm $FAKE/hook"
    File.write!("#{fake}/hook", hook <> "; mkdir -p $2/c_src/nif; touch $2/c_src/nif/#{@sqlite}")
    assert {:ok, []} = run(project)
    calls(fake)
    File.write!("#{repo}/#{@source}", "int a;")
    assert {:ok, []} = run(project)
    assert builds(fake) == 1
  end

  test "another compiler, other options, another environment start afresh", context do
    %{project: project, fake: fake} = context
    {:ok, []} = run(project)

    changes = [
      fn -> File.write!("#{fake}/compiler", "version 2") end,
      fn -> put_env("WEBHOOKS_CMAKE_ARGS", ~s(-DA=1 "-DB=two words")) end,
      fn -> put_env("CXXFLAGS", "-O1") end,
      fn -> put_env("CMAKE_BUILD_TYPE", "Debug") end
    ]

    said =
      for change <- changes do
        mark(project)
        calls(fake)
        assert :noop = run(project)
        change.()
        assert {:ok, []} = run(project)
        assert [configure, _build] = calls = calls(fake)
        refute marked?(calls)
        assert :noop = run(project)
        configure
      end

    assert Enum.any?(said, &(&1 =~ "-DA=1 -DB=two words"))
  end

  test "warnings as errors: asked for, it builds; not asked for, it keeps", context do
    %{project: project, fake: fake} = context
    {:ok, []} = run(project)
    assert [plain, _] = calls(fake)
    assert plain =~ "-DWEBHOOKS_WERROR=OFF"
    assert {:ok, []} = run(project, ["--warnings-as-errors"])
    assert [strict, _] = calls(fake)
    assert strict =~ "-DWEBHOOKS_WERROR=ON"
    assert :noop = run(project)
    assert :noop = run(project, ["--warnings-as-errors"])
  end

  test "what the compiler says becomes diagnostics", %{project: project, fake: fake} = context do
    {:ok, []} = run(project)
    before = File.read!(context.library)
    File.write!("#{context.repo}/#{@source}", "int d;")
    File.write!("#{fake}/says", "/x/a.cpp:3:7: warning: hm\n/x/a.cpp:9:1: error: no\n")
    File.write!("#{fake}/breaks", "")

    for _ <- 1..2 do
      assert {:error, [warning, error, summary]} = run(project)
      assert %{severity: :warning, file: "/x/a.cpp", position: 3, message: "hm"} = warning
      assert %{severity: :error, file: "/x/a.cpp", position: 9, message: "no"} = error
      assert %{severity: :error, compiler_name: "webhooks_native"} = summary
      assert errors() =~ "/x/a.cpp:9:1: error: no\nplausible_webhooks: the C++ code did not"
    end

    assert File.read!(context.library) == before
    File.rm!("#{fake}/breaks")
    assert {:ok, [%{severity: :warning}, %{severity: :error}]} = run(project)
    refute File.read!(context.library) == before
  end

  test "a cache that no longer holds is thrown away, once", %{project: project} = context do
    {:ok, []} = run(project)
    File.write!("#{context.repo}/#{@source}", "int e;")
    File.write!("#{context.fake}/refuse_kept", "")
    assert {:ok, []} = run(project)

    File.write!("#{context.fake}/refuse_new", "")
    assert {:error, [%{severity: :error}]} = run(project, ["--force"])
    said = errors()
    assert said =~ "needs libfoo"
    refute said =~ "looking"
  end

  test "missing tools are named together, with their packages", %{project: project, fake: fake} do
    put_env("PATH", Path.join(fake, "empty"))
    put_env("CMAKE_GENERATOR", nil)
    assert {:error, [%{message: message}]} = run(project)

    for line <- [
          "CMake 3.22",
          "apt-get install cmake",
          "apk add cmake",
          "apt-get install ninja-build",
          "a C++20 compiler",
          "apk add g++"
        ],
        do: assert(message =~ line)

    refute message =~ "erl_nif.h"
    assert [] = calls(fake)
  end

  test "without the C++ sources it says how to get them", %{project: project, repo: repo} do
    File.rm_rf!(Path.join(repo, "c_src"))
    assert {:error, [%{message: message}]} = run(project)
    assert message =~ "subdir:"
  end

  test "in a package the C++ sources are in native/", %{project: project, repo: repo} = context do
    native = Path.join(project, "native")
    on_exit(fn -> File.rm_rf!(native) end)
    File.mkdir_p!(native)
    File.rename!(Path.join(repo, "c_src"), Path.join(native, "c_src"))
    assert {:ok, []} = run(project)
    assert ["-S " <> configure, _build] = calls(context.fake)
    assert String.starts_with?(configure, native <> " ")
  end

  test "two at once build once", %{project: project, fake: fake} do
    File.write!("#{fake}/hook", "sleep 0.5")

    results =
      in_fixture(project, fn ->
        1..3
        |> Enum.map(fn _ -> Task.async(fn -> @compiler.run([]) end) end)
        |> Task.await_many(60_000)
      end)

    assert [:noop, :noop, {:ok, []}] = Enum.sort(results)
    assert builds(fake) == 1
  end

  test "a lost library is built again; clean leaves nothing", context do
    %{project: project, library: library} = context
    with_sqlite(context.fake)
    {:ok, []} = run(project)
    File.rm!(library)
    assert {:ok, []} = run(project)
    in_fixture(project, fn -> @compiler.clean() end)
    refute File.exists?(library)
    assert cached(project, "cmake") ++ cached(project, "lib") == []

    assert in_fixture(project, fn -> Enum.any?(@compiler.manifests(), &File.exists?/1) end) ==
             false

    assert {:ok, []} = run(project)
  end

  test "a manifest that is not ours to read means a build", %{project: project} do
    {:ok, []} = run(project)
    [manifest] = in_fixture(project, fn -> @compiler.manifests() end)

    for bytes <- ["", "garbage", :erlang.term_to_binary({0, %{}}), :erlang.term_to_binary(:ok)] do
      File.write!(manifest, bytes)
      assert {:ok, []} = run(project)
    end
  end

  test "a priv that is a link to the sources becomes a folder of this build", context do
    %{project: project, library: library} = context
    source = Path.join(project, "priv")
    File.mkdir_p!(source)
    on_exit(fn -> File.rm_rf!(source) end)
    File.write!(Path.join(source, "kept"), "")
    in_fixture(project, fn -> Mix.Project.build_structure() end)
    assert {:ok, _} = File.read_link(Path.dirname(library))

    assert {:ok, []} = run(project)
    assert File.regular?(library)
    assert File.exists?(Path.join(Path.dirname(library), "kept"))
    assert ["kept"] = File.ls!(source)
    in_fixture(project, fn -> Mix.Project.build_structure() end)
    assert :noop = run(project)
  end
end
