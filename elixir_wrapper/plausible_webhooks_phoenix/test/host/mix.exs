defmodule Plausible.MixProject do
  use Mix.Project

  def project do
    [
      app: :plausible,
      version: "0.0.1",
      elixir: "~> 1.14",
      deps: deps()
    ]
  end

  def application do
    [mod: {Plausible.Application, []}, extra_applications: [:logger]]
  end

  defp deps do
    [
      {:bandit, "~> 1.2"},
      {:ecto_sql, "~> 3.12"},
      {:jason, "~> 1.4"},
      {:phoenix, "~> 1.7"},
      {:phoenix_live_view, "~> 0.20 or ~> 1.0"},
      {:postgrex, "~> 0.19"}
    ]
  end
end
