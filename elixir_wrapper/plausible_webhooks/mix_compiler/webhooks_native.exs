defmodule Mix.Tasks.Compile.WebhooksNative do
  @shortdoc "Builds the native library with CMake"
  @moduledoc """
  Builds `priv/plausible_webhooks_nif.so` in the build path with CMake, and beside it
  `plausible_webhooks_sqlite.so`, for the embedded store, where SQLite is found.

  `mix.exs` loads this file, because a compiler must exist before the project it
  compiles; the usual answer, `elixir_make`, is a Hex package. Nothing runs while
  the sources, the CMake files, the compiler, the libraries that CMake found, the
  options and Erlang are the ones of the last build.

  `--force` builds from scratch; `--warnings-as-errors` counts for C++ too.
  Environment:

    * `WEBHOOKS_CMAKE_ARGS` - more arguments for CMake, as in a shell, for
      example `-DWEBHOOKS_SANITIZE=address,undefined`
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
  @manifest_version 1
  @project_dir Path.expand("..", __DIR__)
  @env_names ~w(CC CXX CFLAGS CXXFLAGS CPPFLAGS LDFLAGS CROSSCOMPILE CPATH
                CPLUS_INCLUDE_PATH LIBRARY_PATH PKG_CONFIG_PATH PKG_CONFIG_LIBDIR
                CURL_ROOT OPENSSL_ROOT OPENSSL_ROOT_DIR simdjson_ROOT simdjson_DIR)

  @impl true
  def run(args) do
    wanted = wanted(args)
    force? = "--force" in args or "--force-webhooks_native" in args

    if not force? and fresh?(wanted) do
      :noop
    else
      load_cmake()

      CMake.with_lock(fn ->
        if not force? and fresh?(wanted), do: :noop, else: build(wanted, force?)
      end)
    end
  end

  @impl true
  def manifests, do: [manifest_path()]

  @impl true
  def clean do
    load_cmake()

    CMake.with_lock(fn ->
      File.rm_rf!(cmake_dir())
      File.rm(manifest_path())
      File.rm(library_path())
      File.rm(Path.join(priv_dir(), @optional_library))
    end)
  end

  defp load_cmake, do: Code.require_file("cmake.exs", __DIR__)

  # Places

  defp cmake_dir, do: Path.join(Mix.Project.app_path(), "cmake")
  defp priv_dir, do: Path.join(Mix.Project.app_path(), "priv")
  defp library_path, do: Path.join(priv_dir(), @library)

  defp manifest_path,
    do: Path.join(Mix.Project.manifest_path(), "compile.webhooks_native")

  # In the repository the C++ sources are two levels up; a package carries them
  # in native/.
  defp source_roots, do: [Path.join(@project_dir, "native"), Path.expand("../..", @project_dir)]

  defp source_root,
    do: Enum.find(source_roots(), &File.regular?(Path.join(&1, "c_src/nif/CMakeLists.txt")))

  # What is to be built

  defp wanted(args) do
    %{
      source: source_root(),
      dir: cmake_dir(),
      werror: "--warnings-as-errors" in args,
      args: OptionParser.split(System.get_env("WEBHOOKS_CMAKE_ARGS", "")),
      env: env(),
      nif_include: nif_include(),
      nif_version: :erlang.system_info(:nif_version)
    }
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

  # Whether that is what stands there

  defp fresh?(wanted) do
    manifest = read_manifest()

    # A library built with warnings as errors serves those who do not ask for
    # it: the flag changes no code, and without this the two would build in turn.
    same_setup?(manifest, wanted) and (manifest.wanted.werror or not wanted.werror) and
      File.regular?(library_path()) and same_sources?(manifest)
  end

  defp same_setup?(nil, _wanted), do: false

  defp same_setup?(%{wanted: built, toolchain: toolchain}, wanted) do
    Map.delete(built, :werror) == Map.delete(wanted, :werror) and
      Enum.all?(toolchain, fn {path, stat} -> stat(path) == stat end)
  end

  defp same_sources?(%{wanted: %{source: root}, sources: sources, started_at: started_at}) do
    paths = source_paths(root)

    map_size(sources) == length(paths) and
      Enum.all?(paths, &same_source?(&1, sources[&1], started_at))
  end

  defp same_source?(_path, nil, _started_at), do: false

  # The times settle it, unless they are no proof: a second is long enough for
  # two edits, and a checkout touches what it does not change.
  defp same_source?(path, {stat, digest}, started_at) do
    case stat(path) do
      {mtime, _size} = ^stat when mtime < started_at -> true
      _ -> digest(path) == digest
    end
  end

  defp source_paths(root) do
    ["CMakeLists.txt", "{cmake,c_src,include}/**/*.{txt,cmake,cpp,hpp,h,map}"]
    |> Enum.flat_map(&Path.wildcard(Path.join(root, &1)))
  end

  defp stat(path) do
    case File.stat(path, time: :posix) do
      {:ok, %{mtime: mtime, size: size}} -> {mtime, size}
      {:error, _} -> nil
    end
  end

  defp digest(path) do
    case File.read(path) do
      {:ok, bytes} -> :erlang.md5(bytes)
      {:error, _} -> nil
    end
  end

  # What CMake found, out of its cache: tools and libraries are files, packages
  # with a CMake configuration are folders with a version file.
  defp toolchain(nif_include) do
    cache = File.read!(Path.join(cmake_dir(), "CMakeCache.txt"))
    files = for [_, path] <- Regex.scan(~r/^\w+:FILEPATH=(\/.+)$/m, cache), do: path

    versions =
      for [_, dir] <- Regex.scan(~r/^\w+_DIR:PATH=(\/.+)$/m, cache),
          path <- Path.wildcard(dir <> "/*onfig{V,-v}ersion.cmake"),
          do: path

    header = Path.join(nif_include, "erl_nif.h")
    for path <- [header | files ++ versions], stat = stat(path), into: %{}, do: {path, stat}
  end

  defp read_manifest do
    with {:ok, bytes} <- File.read(manifest_path()),
         {@manifest_version, manifest} <- :erlang.binary_to_term(bytes, [:safe]) do
      manifest
    else
      _ -> nil
    end
  rescue
    ArgumentError -> nil
  end

  # The build

  defp build(%{source: nil}, _force?) do
    message =
      "The C++ sources of plausible_webhooks are neither in " <>
        Enum.join(source_roots(), " nor in ") <>
        ".\nAs a Git dependency use subdir: \"elixir_wrapper/plausible_webhooks\", " <>
        "which keeps the whole repository; sparse: does not."

    Mix.shell().error(message)
    {:error, [CMake.diagnostic(:error, message)]}
  end

  defp build(wanted, force?) do
    keep? = not force? and same_setup?(read_manifest(), wanted)
    # Taken before the compiler reads them: an edit during the build counts.
    started_at = System.os_time(:second)
    sources = Map.new(source_paths(wanted.source), &{&1, {stat(&1), digest(&1)}})

    with {:ok, warnings} <- CMake.build(wanted.source, wanted.dir, wanted, keep?) do
      install()
      toolchain = toolchain(wanted.nif_include)

      manifest = %{
        wanted: wanted,
        sources: sources,
        started_at: started_at,
        toolchain: toolchain
      }

      write_manifest(manifest)
      {:ok, warnings}
    end
  end

  defp install do
    priv = priv_dir()

    # Mix links priv to the one in the sources, if there is one: all
    # environments and sanitizer builds would then share this library. With a
    # folder in its place, Mix copies into it from the next run on.
    with {:ok, link} <- File.read_link(priv) do
      File.rm!(priv)
      File.cp_r!(Path.expand(link, Path.dirname(priv)), priv)
    end

    File.mkdir_p!(priv)
    replace_file(library_path(), &File.cp!(built(@library), &1))
    optional = Path.join(priv, @optional_library)

    if File.regular?(built(@optional_library)),
      do: replace_file(optional, &File.cp!(built(@optional_library), &1)),
      else: File.rm(optional)
  end

  defp built(library), do: Path.join([cmake_dir(), "c_src/nif", library])

  defp write_manifest(manifest) do
    File.mkdir_p!(Path.dirname(manifest_path()))
    bytes = :erlang.term_to_binary({@manifest_version, manifest})
    replace_file(manifest_path(), &File.write!(&1, bytes))
  end

  # Another mix, or a VM that has the library mapped, sees the old file or the
  # new one, never half of it.
  defp replace_file(path, write) do
    temporary = "#{path}.#{System.pid()}"
    write.(temporary)
    File.rename!(temporary, path)
  end
end
