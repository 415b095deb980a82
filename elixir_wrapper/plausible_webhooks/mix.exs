Code.require_file("mix_compiler/webhooks_native.exs", __DIR__)

defmodule Plausible.Webhooks.MixProject do
  use Mix.Project

  # A Hex package carries in native/ what the repository has at its top. A checkout
  # without either (sparse:) is refused by the compiler, in words.
  @top Enum.find(
         [Path.join(__DIR__, "native"), Path.expand("../..", __DIR__)],
         &File.regular?(Path.join(&1, "VERSION"))
       )
  @version if @top,
             do: @top |> Path.join("VERSION") |> File.read!() |> String.trim(),
             else: "0.0.0"

  def project do
    [
      app: :plausible_webhooks,
      version: @version,
      elixir: "~> 1.14",
      elixirc_paths: elixirc_paths(Mix.env()),
      compilers: [:webhooks_native] ++ Mix.compilers(),
      start_permanent: Mix.env() == :prod,
      # Mix compiles a path: dependency at every command of its host. Pruning would
      # take from that VM each application of OTP that the host needs and this
      # project does not, such as ssl.
      prune_code_paths: false,
      description: "Signed, retried, logged webhooks for Plausible Analytics",
      package: package(),
      docs: &docs/0,
      deps: deps(System.get_env("WEBHOOKS_DOCS"))
    ]
  end

  def application do
    [extra_applications: [:logger, :crypto] ++ test_applications(Mix.env())]
  end

  defp test_applications(:test),
    do: [:inets, :public_key, :ssl, jiffy: :optional, proper: :optional]

  defp test_applications(_env), do: []

  # The named scenarios, and some VMs that tests start, run in the small host of the demo.
  defp elixirc_paths(:test) do
    above =
      for folder <- ["examples/host", "test/faults"], do: Path.expand("../../#{folder}", __DIR__)

    ["lib", "test/support" | above]
  end

  defp elixirc_paths(_env), do: ["lib"]

  # Nothing from Hex, so that Erlang and Elixir alone build and test it. script/docs
  # asks for ExDoc.
  defp deps(nil), do: []
  defp deps(_docs), do: [{:ex_doc, "~> 0.30", only: :dev, runtime: false}]

  # script/package puts these files together.
  defp package do
    [
      licenses: ["MIT"],
      links: %{
        "Plausible Analytics" => "https://plausible.io",
        "Standard Webhooks" => "https://www.standardwebhooks.com"
      },
      files: ~w(lib mix_compiler native mix.exs .formatter.exs README.md CHANGELOG.md LICENSE)
    ]
  end

  # A group for each folder of lib/plausible/webhooks, which are the layers.
  defp docs do
    folders = Path.wildcard(Path.expand("lib/plausible/webhooks/*/", __DIR__))

    groups =
      for folder <- folders, File.dir?(folder) do
        modules =
          for file <- Path.wildcard(Path.join(folder, "**/*.ex")),
              [_, name] <- Regex.scan(~r/^defmodule (\S+)/m, File.read!(file)),
              do: Module.concat([name])

        {folder |> Path.basename() |> String.capitalize(), modules}
      end

    [
      main: "Plausible.Webhooks",
      groups_for_modules: groups,
      extras: for(name <- ~w(README.md CHANGELOG.md), do: Path.join(@top, name))
    ]
  end
end
