defmodule Plausible.Webhooks.ScriptsTest do
  # What the scripts refuse, they refuse before they install or build anything.
  use ExUnit.Case, async: true

  @root Path.expand("../../..", __DIR__)

  defp script(name, arguments, options \\ []) do
    System.cmd(Path.join([@root, "script", name]), arguments, [stderr_to_stdout: true] ++ options)
  end

  test "demo names a wrong option, or one without a value" do
    assert {"demo: not understood: --nonsense (see script/demo --help)\n", 2} =
             script("demo", ["--pause", "0", "--nonsense"])

    assert {"demo: --url wants a value (see script/demo --help)\n", 2} = script("demo", ["--url"])
  end

  @tag :tmp_dir
  test "test --plausible takes a folder relative to the caller's", %{tmp_dir: tmp_dir} do
    tree = Path.join(tmp_dir, "with space")
    File.mkdir_p!(Path.join(tree, "lib/plausible"))
    File.touch!(Path.join(tree, "mix.exs"))

    assert {said, 1} = script("test", ["--plausible", "with space"], cd: tmp_dir)
    assert said =~ "with space has no deps/: run mix deps.get there first"
    assert {said, 1} = script("test", ["--plausible", "absent"], cd: tmp_dir)
    assert said =~ "absent is not a checkout of Plausible"
  end
end
