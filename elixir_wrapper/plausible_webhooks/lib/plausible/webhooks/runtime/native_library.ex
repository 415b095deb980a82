defmodule Plausible.Webhooks.Runtime.NativeLibrary do
  @moduledoc false
  # Loads a module's NIF, and remembers why it could not be loaded.
  #
  # A release loads every module at boot, and there an `@on_load` that fails ends
  # the VM. A host must not die of a library that it lacks and perhaps never uses.
  # So `@on_load` succeeds and the stubs stay; whoever needs the library asks
  # `check/1` first, and a stub that is called raises with the same text.

  @headers %{"plausible_webhooks_sqlite.so" => {"SQLite", "libsqlite3-dev", "sqlite-dev"}}

  @doc "The path that `:erlang.load_nif/2` takes, which adds the suffix itself."
  @spec path(String.t()) :: charlist()
  def path(name), do: :filename.join(:code.priv_dir(:plausible_webhooks), to_charlist(name))

  @doc """
  Keeps what `:erlang.load_nif/2` returned to `module` and returns what its
  `@on_load` has to return.

  An upgrade that fails returns the error: then the VM keeps the version that works.
  """
  @spec loaded(module(), charlist(), :ok | {:error, {atom(), charlist()}}) ::
          :ok | {:error, {atom(), charlist()}}
  def loaded(module, path, result) do
    if result != :ok and :persistent_term.get({__MODULE__, module}, nil) == :ok do
      result
    else
      :persistent_term.put({__MODULE__, module}, with({:error, why} <- result, do: {path, why}))
    end
  end

  @doc "Whether the NIF of `module` is there; if not, what is missing and which package has it."
  @spec check(module()) :: :ok | {:error, String.t()}
  def check(module) do
    {:module, ^module} = Code.ensure_loaded(module)

    with {path, {_reason, text}} <- :persistent_term.get({__MODULE__, module}) do
      # The bytes of a path are characters where the VM takes file names for Latin-1.
      library = utf8(path) <> ".so"
      {:error, describe(library, File.regular?(library), utf8(text))}
    end
  end

  # The VM takes the bytes of a path for characters.
  defp utf8(text) do
    bytes = :erlang.iolist_to_binary(text)
    if String.valid?(bytes), do: bytes, else: to_string(text)
  rescue
    ArgumentError -> to_string(text)
  end

  @doc "The exception for a stub of `module`."
  @spec exception(module()) :: Exception.t()
  def exception(module) do
    {:error, text} = check(module)
    RuntimeError.exception(text)
  end

  @doc false
  @spec describe(Path.t(), boolean(), String.t()) :: String.t()
  def describe(library, built?, text)

  def describe(library, false, _text) do
    name = Path.basename(library)

    case @headers do
      %{^name => {what, debian, alpine}} ->
        "#{library} does not exist: plausible_webhooks was compiled without the headers of #{what} " <>
          packages(debian, alpine)

      _required ->
        "#{library} does not exist: compile plausible_webhooks again " <>
          "(mix deps.compile plausible_webhooks --force)"
    end
  end

  def describe(library, true, text) do
    failed = "#{Path.basename(library)} cannot be loaded: #{text}"

    case Regex.run(~r/(lib[^\s\/:']+)\.so\.?(\d*)\S*: (?:cannot open|No such file)/, text) do
      [_, name, version] ->
        "#{soname(name, version)} is missing " <>
          packages(debian(name, version), "so:#{soname(name, version)}") <> ". #{failed}"

      nil ->
        failed
    end
  end

  defp packages(debian, alpine),
    do: "(Debian, Ubuntu: apt-get install #{debian}; Alpine: apk add #{alpine})"

  # Debian names the package of a library after the name in the library, except for
  # OpenSSL's. Alpine's packages provide that name itself. Debian 12 names c-ares another way.
  defp debian("libcares", version), do: "libcares#{version} or libc-ares#{version}"
  defp debian("libcrypto", version), do: debian("libssl", version)

  defp debian(name, version) do
    hyphen = if name =~ ~r/\d$/, do: "-", else: ""
    String.replace(name, "_", "-") <> hyphen <> version
  end

  defp soname(name, version), do: String.trim_trailing("#{name}.so.#{version}", ".")
end
