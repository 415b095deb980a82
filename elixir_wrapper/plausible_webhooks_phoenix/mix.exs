defmodule Plausible.Webhooks.Phoenix.MixProject do
  use Mix.Project

  @version "0.1.0"
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
      description: "Plausible.Webhooks on Ecto and PostgreSQL, for more than one node",
      deps: deps()
    ]
  end

  def application, do: [extra_applications: applications(Mix.env())]

  # The tests visit a site by OTP's own HTTP client.
  defp applications(:test), do: [:logger, :crypto, :inets]
  defp applications(_env), do: [:logger, :crypto]

  defp deps do
    [
      {:plausible_webhooks, path: @core},
      {:ecto_sql, "~> 3.12"},
      {:postgrex, "~> 0.19"},
      {:telemetry, "~> 1.0"},
      {:phoenix_pubsub, "~> 2.1"},
      {:phoenix_live_view, "~> 0.20 or ~> 1.0"},
      # The format of LiveView's messages, unless the host configures another library.
      {:jason, "~> 1.4"},
      # Serves the page in tests and in the demo; what LiveView's tests read HTML with.
      {:bandit, "~> 1.2", only: [:dev, :test]},
      {html_parser(), ">= 0.1.0", only: :test},
      # Comes with prom_ex, which a host may have.
      {:telemetry_metrics, "~> 1.0", only: :test}
    ]
  end

  # LiveView 1.1, which needs Elixir 1.15, has left Floki for LazyHTML.
  defp html_parser do
    if Version.match?(System.version(), ">= 1.15.0"), do: :lazy_html, else: :floki
  end

  # The contract that every store keeps is the first project's, and so are its
  # tests and what they need; here they are compiled from where they are.
  defp elixirc_paths(:test) do
    support = Path.expand("#{@core}/test/support", __DIR__)

    names =
      ~w(store_contract.ex store_contract scenarios.ex scenarios test_host.ex http_receiver.ex
         json_schema.ex peer.ex)

    shared = for name <- names, do: Path.join(support, name)
    ["lib", "test/support", @web, @host] ++ shared
  end

  defp elixirc_paths(:dev), do: ["lib", @web]
  defp elixirc_paths(_env), do: ["lib"]
end
