defmodule Plausible.Webhooks.NativeJsonPropertyTest do
  # Generated terms, always the same ones: what encode/1 writes, decoders that
  # are not ours must read as what was meant; and a fault planted anywhere must
  # be found there.
  use ExUnit.Case, async: true

  alias Plausible.Webhooks.JsonTerms
  alias Plausible.Webhooks.Native

  @moduletag timeout: 600_000
  @terms 100_000

  # jiffy (Debian's erlang-jiffy) and Node are no dependencies of ours.
  @jiffy Code.ensure_loaded?(:jiffy)
  @node System.find_executable("node")

  if !@jiffy, do: IO.puts("jiffy is not installed: no comparison with it")
  if !@node, do: IO.puts("node is not installed: no comparison with it")

  defp each_term(seed, count, fun) do
    :rand.seed(:exsss, {seed, 2, 3})

    for _ <- 1..count//1 do
      {term, wanted} = JsonTerms.any()
      fun.(term, wanted)
    end
  end

  test "our own decoder and jiffy read what our encoder writes" do
    each_term(1, @terms, fn term, wanted ->
      assert {:ok, json} = Native.encode(term)
      assert {:ok, ^wanted} = Native.decode(json)
      if @jiffy, do: assert(jiffy(json) === wanted)
    end)
  end

  if !@jiffy, do: @tag(skip: "jiffy is not installed")

  test "our decoder reads what jiffy's encoder writes" do
    each_term(4, div(@terms, 4), fn _term, wanted ->
      json = :jiffy |> apply(:encode, [wanted, [:use_nil]]) |> IO.iodata_to_binary()
      # jiffy writes -0.0 as 0.0, which a match tells apart from OTP 27 on.
      assert {:ok, term} = Native.decode(json)
      assert term == wanted
    end)
  end

  if !@node, do: @tag(skip: "node is not installed")
  @tag :tmp_dir
  test "Node reads what our encoder writes", %{tmp_dir: dir} do
    input = Path.join(dir, "in")
    output = Path.join(dir, "out")

    wanted =
      File.open!(input, [:write, :raw, :delayed_write], fn file ->
        each_term(1, @terms, fn term, wanted ->
          {:ok, json} = Native.encode(term)
          :ok = :file.write(file, [json, ?\n])
          wanted
        end)
      end)

    script = """
    const [input, output] = process.argv.slice(1), fs = require("fs");
    const lines = fs.readFileSync(input, "utf8").split("\\n").slice(0, -1);
    fs.writeFileSync(output, lines.map(l => JSON.stringify(JSON.parse(l)) + "\\n").join(""));
    """

    assert {"", 0} = System.cmd(@node, ["-e", script, input, output], stderr_to_stdout: true)

    lines = output |> File.read!() |> String.split("\n", trim: true)
    assert length(lines) == @terms

    for {line, wanted} <- Enum.zip(lines, wanted) do
      assert {:ok, got} = Native.decode(line)
      assert JsonTerms.same_to_node?(wanted, got), "#{inspect(wanted)} became #{line}"
    end
  end

  test "a fault planted anywhere is found there" do
    faults = [
      {self(), :unsupported_type},
      {{1, 2}, :unsupported_type},
      {<<1::7>>, :unsupported_type},
      {1..2, :unsupported_type},
      {"a\xff", :invalid_utf8},
      {%{"\xc0" => 1}, :invalid_utf8},
      {[1 | 2], :improper_list},
      {%{1.5 => 1}, :unsupported_key},
      {%{:a => 1, "a" => 1}, :mixed_keys},
      {Integer.pow(2, 64), :too_large}
    ]

    :rand.seed(:exsss, {5, 2, 3})

    for _ <- 1..20_000 do
      {fault, reason} = Enum.random(faults)
      {term, path} = JsonTerms.around(fault)
      assert Native.encode(term) == {:error, {reason, path}}
    end
  end

  defp jiffy(json), do: apply(:jiffy, :decode, [json, [:return_maps, :use_nil]])
end
