defmodule Plausible.Webhooks.Phoenix.MixProject do
  use Mix.Project

  # A Hex package has its own VERSION; in the repository it is at the top.
  @packaged File.regular?(Path.join(__DIR__, "VERSION"))
  @version Path.join(__DIR__, if(@packaged, do: "VERSION", else: "../../VERSION"))
           |> File.read!()
           |> String.trim()
  @core "../plausible_webhooks"
  # A host for the settings page, for the demo and for tests.
  @web Path.expand("../../examples/web", __DIR__)
  @host Path.expand("../../examples/host", __DIR__)

  def project do
    [
      app: :plausible_webhooks_phoenix,
      version: @version,
      elixir: "~> 1.14",
      elixirc_paths: elixirc_paths(Mix.env()),
      start_permanent: Mix.env() == :prod,
      # For the same reason as in the first project: this one is compiled inside its
      # host's commands.
      prune_code_paths: false,
      description: "Plausible.Webhooks on Ecto and PostgreSQL, with a settings page",
      package: package(),
      docs: &docs/0,
      deps: deps() ++ docs_deps(System.get_env("WEBHOOKS_DOCS"))
    ]
  end

  def application, do: [extra_applications: applications(Mix.env())]

  # The tests visit a site by OTP's own HTTP client.
  defp applications(:test), do: [:logger, :crypto, :inets]
  defp applications(_env), do: [:logger, :crypto]

  defp deps do
    [
      {:plausible_webhooks, if(@packaged, do: "== #{@version}", else: [path: @core])},
      {:ecto_sql, "~> 3.12"},
      {:postgrex, "~> 0.19"},
      {:telemetry, "~> 1.0"},
      {:phoenix_pubsub, "~> 2.1"},
      {:phoenix_live_view, live_view()},
      # Indents JSON on the settings page; the format of LiveView's messages by default.
      {:jason, "~> 1.4"},
      # Serves the page in tests and in the demo; what LiveView's tests read HTML with.
      {:bandit, "~> 1.2", only: [:dev, :test]},
      {:hpax, hpax(), only: [:dev, :test]},
      {html_parser(), ">= 0.1.0", only: :test},
      # Comes with prom_ex, which a host may have.
      {:telemetry_metrics, "~> 1.0", only: :test}
    ]
  end

  # Newer versions of LiveView and of Bandit's HPAX need Elixir 1.15, which Hex does not
  # consider. LiveView 1.1 has left Floki for LazyHTML.
  @elixir_114 Version.match?(System.version(), "< 1.15.0")

  defp live_view, do: if(@elixir_114, do: "~> 0.20 or ~> 1.0.0", else: "~> 0.20 or ~> 1.0")
  defp html_parser, do: if(@elixir_114, do: :floki, else: :lazy_html)
  defp hpax, do: if(@elixir_114, do: "~> 0.1 or ~> 1.0.0 and < 1.0.4", else: ">= 0.1.0")

  # The contract that every store keeps is the first project's, and so are its
  # tests and what they need; here they are compiled from where they are.
  defp elixirc_paths(:test) do
    support = Path.expand("#{@core}/test/support", __DIR__)

    names =
      ~w(as_user.ex eventually.ex instance_case.ex observer.ex switch_store.ex shared_tests.ex store_contract.ex store_contract scenarios.ex scenarios test_host.ex
         http_receiver.ex json_schema.ex peer.ex)

    shared = for name <- names, do: Path.join(support, name)
    ["lib", "test/support", @web, @host] ++ shared
  end

  defp elixirc_paths(:dev), do: ["lib", @web]
  defp elixirc_paths(_env), do: ["lib"]

  defp docs_deps(nil), do: []
  defp docs_deps(_docs), do: [{:ex_doc, "~> 0.30", only: :dev, runtime: false}]

  # script/package puts these files together.
  defp package do
    [
      licenses: ["MIT"],
      links: %{
        "Plausible Analytics" => "https://plausible.io",
        "Standard Webhooks" => "https://www.standardwebhooks.com"
      },
      files: ~w(lib priv receivers mix.exs .formatter.exs VERSION README.md CHANGELOG.md LICENSE)
    ]
  end

  defp docs do
    [
      main: "Plausible.Webhooks.Host.Plausible",
      groups_for_modules: [
        Store: ~r/Plausible\.Webhooks\.(Store|Migrations)/,
        Host: ~r/Plausible\.Webhooks\.Host/,
        Page: ~r/PlausibleWeb/
      ],
      extras: Path.wildcard(Path.expand("../../docs/*.md", __DIR__))
    ]
  end
end
