defmodule Plausible.Webhooks.Test.Crash.Clock do
  @moduledoc false
  # The wall clock of one process, off by as much as a file says: a library that is
  # loaded before libc (see clock.c). What runs by the monotonic clock goes on.

  @source Path.join(__DIR__, "clock.c")
  @external_resource @source
  @code File.read!(@source)

  @type t :: %{library: Path.t(), file: Path.t()}

  @spec build(Path.t()) :: {:ok, t()} | {:error, String.t()}
  def build(folder) do
    case Enum.find_value(["cc", "gcc", "clang"], &System.find_executable/1) do
      nil -> {:error, "no C compiler is to be had"}
      compiler -> build(compiler, folder)
    end
  end

  defp build(compiler, folder) do
    source = Path.join(folder, "clock.c")
    clock = %{library: Path.join(folder, "clock.so"), file: Path.join(folder, "clock")}
    File.write!(source, @code)
    File.write!(clock.file, <<0::64>>)
    args = ["-O1", "-shared", "-fPIC", "-o", clock.library, source, "-ldl"]

    case System.cmd(compiler, args, stderr_to_stdout: true) do
      {_output, 0} -> {:ok, clock}
      {output, _status} -> {:error, "the clock's library does not compile: #{output}"}
    end
  end

  @doc "The environment of a process whose clock it is."
  @spec environment(t()) :: [{String.t(), String.t()}]
  def environment(clock),
    do: [{"LD_PRELOAD", clock.library}, {"WEBHOOKS_CLOCK_FILE", clock.file}]

  @doc "Sets it, in the running process too."
  @spec set(t(), integer()) :: :ok
  def set(clock, offset_ms) do
    {:ok, file} = :file.open(clock.file, [:read, :write, :raw, :binary])
    # In place: the process has mapped it.
    :ok = :file.pwrite(file, 0, <<offset_ms::native-signed-64>>)
    :ok = :file.close(file)
  end
end
