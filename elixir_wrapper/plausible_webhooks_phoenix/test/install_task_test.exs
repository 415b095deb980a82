defmodule Plausible.Webhooks.InstallTaskTest do
  use Plausible.Webhooks.InstallCase, async: false

  alias Mix.Tasks.PlausibleWebhooks.Install

  setup do
    Mix.shell(Mix.Shell.Process)
    on_exit(fn -> Mix.shell(Mix.Shell.IO) end)
  end

  describe "mix plausible_webhooks.install" do
    defp info, do: messages(:info)
    defp errors, do: messages(:error)

    defp messages(kind) do
      receive do
        {:mix_shell, ^kind, [text]} -> text <> "\n" <> messages(kind)
      after
        0 -> ""
      end
    end

    test "shows, asks, and writes nothing when the answer is no", %{root: root} do
      before = snapshot(root)
      send(self(), {:mix_shell_input, :yes?, false})
      assert catch_exit(Install.run(["--root", root])) == {:shutdown, 1}
      assert_received {:mix_shell, :yes?, ["Write these changes?"]}
      text = info()
      assert text =~ "--- a/mix.exs\n+++ b/mix.exs\n@@ "
      assert text =~ "Nothing was written."
      assert snapshot(root) == before
    end

    test "writes when the answer is yes, and with --yes without asking", %{root: root} do
      send(self(), {:mix_shell_input, :yes?, true})
      assert Install.run(["--root", root, "--no-page"]) == :ok
      assert_received {:mix_shell, :yes?, _question}
      assert info() =~ "mix.exs: then: mix deps.get"
      assert read(root, "lib/plausible/goals/goals.ex") =~ "goals_changed"
      refute read(root, "lib/plausible_web/router.ex") =~ "webhooks"

      assert Install.run(["--root", root, "--yes"]) == :ok
      assert read(root, "lib/plausible_web/router.ex") =~ "webhooks"
      refute_received {:mix_shell, :yes?, _question}
      info()

      assert Install.run(["--root", root, "--yes"]) == :ok
      assert info() == "There is nothing to add.\n"
    end

    test "--dry-run writes nothing and succeeds", %{root: root} do
      before = snapshot(root)
      assert Install.run(["--root", root, "--dry-run"]) == :ok
      said = info()
      assert said =~ "Would change:\n    Dockerfile\n"
      assert said =~ "mix.exs: then: mix deps.get"
      assert snapshot(root) == before
    end

    test "edits the others, prints lines to add by hand, exits with status 1", %{root: root} do
      write(root, "config/runtime.exs", "import Config\n")
      assert catch_exit(Install.run(["--root", root, "--yes"])) == {:shutdown, 1}
      assert errors() == "Left to you: config/runtime.exs\n"

      assert info() =~ """
             config/runtime.exs is left alone: no variable config_dir.
             To be added at its end:

                 # webhooks: the variables are explained in the docs/plausible.md of that package
                 config :plausible,
             """

      assert read(root, "config/runtime.exs") == "import Config\n"
      assert read(root, "mix.exs") =~ "plausible_webhooks_phoenix"
    end

    test "names the line to remove, and shows no lines to add", %{root: root} do
      Install.run(["--root", root, "--yes", "--path", "vendor/plausible-webhooks/x/y"])
      replace(root, "mix.exs", ~r/path: "vendor.*"/, ~s(git: "https://example.com/w.git"))
      info()
      assert catch_exit(Install.run(["--root", root, "--yes"])) == {:shutdown, 1}
      [_before, said] = String.split(info(), "Dockerfile is left alone: line 6 copies ")
      assert said =~ ~r/\A[^\n]* must be removed\.\n\nassets/
      refute said =~ "There is nothing to add."
    end

    test "writes nothing when one of the files cannot be written", %{root: root} do
      # In the place of a folder that is to hold a new one.
      templates = Path.join(root, "lib/plausible_web/templates")
      File.rm_rf!(templates)
      File.write!(templates, "")
      before = snapshot(root)

      assert_raise Mix.Error, ~r/could not write to file .*settings_webhooks/, fn ->
        Install.run(["--root", root, "--yes"])
      end

      assert snapshot(root) == before
    end

    test "says how to build the style sheet, and where its source has to be", %{root: root} do
      {inside, outside} = {"vendor/plausible-webhooks/x/y", "../plausible-webhooks/x/y"}

      assert noted(root, ["--git", "https://example.com/w.git"]) == "then: mix assets.build"
      assert noted(root, ["--path", inside]) == "then: mix assets.build"

      for path <- [outside, Path.expand(outside, root)],
          do: assert(noted(root, ["--path", path]) =~ ~r/outside .* then: mix assets.build$/)
    end

    # The note about the style sheet of an installation in a copy of the folder.
    defp noted(root, args) do
      copy = "#{root}-copy"
      File.rm_rf!(copy)
      File.cp_r!(root, copy)
      on_exit(fn -> File.rm_rf!(copy) end)
      Install.run(["--root", copy, "--yes" | args])
      [_all, note] = Regex.run(~r"^assets/css/app.css: (.*)$"m, info())
      note
    end

    test "--git and --ref", %{root: root} do
      Install.run(["--root", root, "--yes", "--git", "https://example.com/w.git", "--ref", "v1"])
      assert read(root, "mix.exs") =~ ~s(git: "https://example.com/w.git")
      assert read(root, "mix.exs") =~ ~s(ref: "v1")
    end

    test "refuses wrong options before it reads", %{root: root} do
      for {args, why} <- [
            {["--root", Path.join(root, "lib")], ~r/is not Plausible's folder/},
            {["--root", root, "--force"], ~r/not an option.*--force/},
            {["--root", root, "now"], ~r/not an option: now/},
            {["--root", root, "--path", "x", "--git", "y"], ~r/--path or --git, not both/},
            {["--root", root, "--ref", "v1"], ~r/--ref needs --git/},
            {["--root", ""], ~r/--root must not be empty/},
            {["--root", root, "--path", ""], ~r/--path must not be empty/},
            {["--root", root, "--git", " "], ~r/--git must not be empty/},
            {["--root", root, "--git", "y", "--ref", ""], ~r/--ref must not be empty/}
          ] do
        assert_raise Mix.Error, why, fn -> Install.run(args) end
      end
    end
  end
end
