defmodule Mix.Tasks.Compile.WebhooksNative do
  @shortdoc "Builds the native library with CMake"
  @moduledoc """
  Builds `priv/plausible_webhooks_nif.so` in the build path with CMake, and beside it
  `plausible_webhooks_sqlite.so`, for the embedded store, where SQLite is found.

  `mix.exs` loads this file, because a compiler must exist before the project it
  compiles; the usual answer, `elixir_make`, is a Hex package.

  All environments of a project share one build. It is kept in
  `_build/plausible_webhooks_native`, beside the folders of the environments: CMake's
  folder, and the libraries by the digest of sources, options and Erlang. They serve
  as long as the compiler and the libraries that CMake found are the same files.

  `--force` builds from scratch; `--warnings-as-errors` counts for C++ too.
  Environment:

    * `WEBHOOKS_NATIVE_CACHE` - another folder for what is shared, which may serve
      several projects
    * `WEBHOOKS_CMAKE_ARGS` - more arguments for CMake, as in a shell, for
      example `-DCMAKE_BUILD_TYPE=RelWithDebInfo` (`Release`, the default, has no
      symbols)
    * `CC`, `CXX`, `CXXFLAGS`, `LDFLAGS`, `CMAKE_*`, `CURL_ROOT`, `OPENSSL_ROOT_DIR`,
      `simdjson_ROOT` - as CMake reads them
    * `CMAKE_BUILD_PARALLEL_LEVEL` - parallel jobs; default: the schedulers online
    * `ERTS_INCLUDE_DIR`, `ERL_EI_INCLUDE_DIR` - where `erl_nif.h` is, for cross
      compilation; default: in the Erlang that runs Mix
  """
  use Mix.Task.Compiler

  alias Plausible.Webhooks.MixCompiler.CMake

  # Loaded when there is something to build: every mix command loads this file,
  # and nearly none builds.
  @compile {:no_warn_undefined, CMake}

  @library "plausible_webhooks_nif.so"
  @optional_library "plausible_webhooks_sqlite.so"
  @manifest_version 2
  # How many builds stay: one with sanitizers beside the usual one, and one to spare.
  @kept 3
  @project_dir Path.expand("..", __DIR__)
  @env_names ~w(CC CXX CFLAGS CXXFLAGS CPPFLAGS LDFLAGS CROSSCOMPILE CPATH
                CPLUS_INCLUDE_PATH LIBRARY_PATH PKG_CONFIG_PATH PKG_CONFIG_LIBDIR
                CURL_ROOT OPENSSL_ROOT OPENSSL_ROOT_DIR simdjson_ROOT simdjson_DIR)

  @impl true
  def run(args) do
    wanted = wanted("--warnings-as-errors" in args)

    cond do
      "--force" in args -> locked(wanted, fn -> build(wanted, false) end)
      fresh?(wanted) -> :noop
      true -> locked(wanted, fn -> if fresh?(wanted), do: :noop, else: serve(wanted) end)
    end
  rescue
    error in File.Error ->
      fail(
        "plausible_webhooks: #{Exception.message(error)} (WEBHOOKS_NATIVE_CACHE: a folder to build in)"
      )
  end

  defp fail(message) do
    Mix.shell().error(message)
    {:error, [CMake.diagnostic(:error, message)]}
  end

  @impl true
  def manifests, do: [manifest_path()]

  @impl true
  def clean do
    wanted = wanted(false)

    locked(wanted, fn ->
      for path <- [wanted.cmake_dir, wanted.stored, manifest_path()], do: File.rm_rf!(path)
      for name <- [@library, @optional_library], do: File.rm(Path.join(priv_dir(), name))
    end)
  end

  defp locked(wanted, fun) do
    Code.require_file("cmake.exs", __DIR__)
    CMake.with_lock(wanted.cache, fun)
  end

  # What is to be built, and where

  defp wanted(werror?) do
    source = source_root()

    setup = %{
      args: OptionParser.split(System.get_env("WEBHOOKS_CMAKE_ARGS", "")),
      env: env(),
      nif_include: nif_include(),
      nif_version: :erlang.system_info(:nif_version)
    }

    key = digest({@manifest_version, setup, source && contents(source)})
    cache = cache_dir()

    Map.merge(setup, %{
      source: source,
      werror: werror?,
      key: key,
      cache: cache,
      cmake_dir: Path.join(cache, "cmake-" <> digest({setup, source})),
      stored: Path.join(cache, "lib-" <> key)
    })
  end

  # In the repository the C++ sources are two levels up; a package carries them
  # in native/.
  defp source_roots, do: [Path.join(@project_dir, "native"), Path.expand("../..", @project_dir)]

  defp source_root,
    do: Enum.find(source_roots(), &File.regular?(Path.join(&1, "c_src/nif/CMakeLists.txt")))

  # Read at every command: times are no proof, since a second is long enough for two
  # edits and a checkout touches what it does not change. It is less than a megabyte.
  defp contents(source) do
    for pattern <- ["{VERSION,CMakeLists.txt}", "{cmake,c_src,include}/**/*"],
        path <- Path.wildcard(Path.join(source, pattern)),
        {:ok, bytes} <- [File.read(path)],
        do: {Path.relative_to(path, source), bytes}
  end

  defp digest(term) do
    :erlang.term_to_binary(term, [:deterministic]) |> :erlang.md5() |> Base.encode16(case: :lower)
  end

  defp env do
    for {name, value} <- System.get_env(),
        name in @env_names or String.starts_with?(name, "CMAKE_"),
        name != "CMAKE_BUILD_PARALLEL_LEVEL",
        into: %{},
        do: {name, value}
  end

  defp nif_include do
    root = to_string(:code.root_dir())

    [
      System.get_env("ERTS_INCLUDE_DIR"),
      System.get_env("ERL_EI_INCLUDE_DIR"),
      Path.join(root, "usr/include"),
      Path.join([root, "erts-#{:erlang.system_info(:version)}", "include"])
    ]
    |> Enum.find(&(&1 && File.regular?(Path.join(&1, "erl_nif.h"))))
  end

  # The folders of all environments have this one in common, a dependency's and a
  # project's own.
  defp cache_dir do
    # An empty variable would name the current folder, which is the sources.
    case System.get_env("WEBHOOKS_NATIVE_CACHE", "") do
      "" -> Path.join(Path.dirname(Mix.Project.build_path()), "plausible_webhooks_native")
      folder -> Path.expand(folder)
    end
  end

  defp priv_dir, do: Path.join(Mix.Project.app_path(), "priv")

  defp manifest_path,
    do: Path.join(Mix.Project.manifest_path(), "compile.webhooks_native")

  # Whether that is what stands there

  defp fresh?(wanted),
    do: serves?(manifest_path(), wanted) and File.regular?(Path.join(priv_dir(), @library))

  # A library built with warnings as errors serves those who do not ask for it: the
  # flag changes no code, and without this the two would build in turn.
  defp serves?(path, %{key: key, werror: werror?}) do
    case read_manifest(path) do
      %{key: ^key} = manifest -> (manifest.werror or not werror?) and same_toolchain?(manifest)
      _other -> false
    end
  end

  defp same_toolchain?(%{toolchain: toolchain}),
    do: Enum.all?(toolchain, fn {path, stat} -> stat(path) == stat end)

  # What CMake found, out of its cache: tools and libraries are files, packages
  # with a CMake configuration are folders with a version file.
  defp toolchain(wanted) do
    cache = File.read!(Path.join(wanted.cmake_dir, "CMakeCache.txt"))
    files = for [_, path] <- Regex.scan(~r/^\w+:FILEPATH=(\/.+)$/m, cache), do: path

    versions =
      for [_, dir] <- Regex.scan(~r/^\w+_DIR:PATH=(\/.+)$/m, cache),
          path <- Path.wildcard(dir <> "/*onfig{V,-v}ersion.cmake"),
          do: path

    header = Path.join(wanted.nif_include, "erl_nif.h")
    for path <- [header | files ++ versions], stat = stat(path), into: %{}, do: {path, stat}
  end

  defp stat(path) do
    with {:ok, %{mtime: mtime, size: size}} <- File.stat(path, time: :posix),
         do: {mtime, size},
         else: (_error -> nil)
  end

  defp read_manifest(path) do
    with {:ok, bytes} <- File.read(path),
         {@manifest_version, manifest} <- :erlang.binary_to_term(bytes, [:safe]) do
      manifest
    else
      _ -> nil
    end
  rescue
    ArgumentError -> nil
  end

  # The build

  defp serve(%{stored: stored} = wanted) do
    manifest = Path.join(stored, "manifest")

    if serves?(manifest, wanted) do
      # Used lately: what was not goes first.
      File.touch!(manifest)
      install(stored, read_manifest(manifest))
      {:ok, []}
    else
      build(wanted, true)
    end
  end

  defp build(%{source: nil}, _keep?) do
    message =
      "The C++ sources of plausible_webhooks are neither in " <>
        Enum.join(source_roots(), " nor in ") <>
        ".\nAs a Git dependency use subdir: \"elixir_wrapper/plausible_webhooks\", " <>
        "which keeps the whole repository; sparse: does not."

    fail(message)
  end

  defp build(%{cmake_dir: dir} = wanted, keep?) do
    previous = read_manifest(Path.join(dir, "manifest"))
    keep? = keep? and previous != nil and same_toolchain?(previous)

    with {:ok, warnings} <- CMake.build(wanted, keep?) do
      manifest = %{
        # Sources that were edited meanwhile are not known to be what was built.
        key: if(wanted(false).key == wanted.key, do: wanted.key),
        werror: wanted.werror,
        toolchain: toolchain(wanted)
      }

      write_manifest(Path.join(dir, "manifest"), manifest)
      store(wanted, manifest)
      install(Path.join(dir, "c_src/nif"), manifest)
      {:ok, warnings}
    end
  end

  # Without SQLite it is not kept: CMake is to look again, which takes seconds, since
  # somebody may have installed it for the next build.
  defp store(%{cmake_dir: dir, stored: stored, cache: cache}, manifest) do
    built = Path.join(dir, "c_src/nif")

    if manifest.key && File.regular?(Path.join(built, @optional_library)) do
      copy_libraries(built, stored)
      write_manifest(Path.join(stored, "manifest"), manifest)
    end

    for {kind, mine} <- [cmake: dir, lib: stored] do
      (Path.wildcard(Path.join(cache, "#{kind}-*")) -- [mine])
      |> Enum.sort_by(&stat(Path.join(&1, "manifest")), :desc)
      |> Enum.drop(@kept - 1)
      |> Enum.each(&File.rm_rf!/1)
    end
  end

  defp install(from, manifest) do
    priv = priv_dir()

    # Mix links priv to the one in the sources, if there is one: all
    # environments and sanitizer builds would then share this library. With a
    # folder in its place, Mix copies into it from the next run on.
    with {:ok, link} <- File.read_link(priv) do
      File.rm!(priv)
      File.cp_r!(Path.expand(link, Path.dirname(priv)), priv)
    end

    copy_libraries(from, priv)
    write_manifest(manifest_path(), manifest)
  end

  defp copy_libraries(from, to) do
    for name <- [@library, @optional_library] do
      built = Path.join(from, name)
      path = Path.join(to, name)

      if name == @library or File.regular?(built),
        do: replace_file(path, &File.cp!(built, &1)),
        else: File.rm(path)
    end
  end

  defp write_manifest(path, manifest) do
    bytes = :erlang.term_to_binary({@manifest_version, manifest})
    replace_file(path, &File.write!(&1, bytes))
  end

  # Another mix, or a VM that has the library mapped, sees the old file or the
  # new one, never half of it.
  defp replace_file(path, write) do
    File.mkdir_p!(Path.dirname(path))
    temporary = "#{path}.#{System.pid()}"
    write.(temporary)
    File.rename!(temporary, path)
  end
end
