Code.require_file("mix_compiler/webhooks_native.exs", __DIR__)

defmodule Plausible.Webhooks.MixProject do
  use Mix.Project

  @version "0.1.0"

  def project do
    [
      app: :plausible_webhooks,
      version: @version,
      elixir: "~> 1.14",
      elixirc_paths: elixirc_paths(Mix.env()),
      compilers: [:webhooks_native] ++ Mix.compilers(),
      start_permanent: Mix.env() == :prod,
      description: "Signed, retried, logged webhooks for Plausible Analytics",
      deps: []
    ]
  end

  def application do
    [extra_applications: [:logger, :crypto] ++ test_applications(Mix.env())]
  end

  defp test_applications(:test), do: [:inets, :public_key, :ssl, jiffy: :optional]
  defp test_applications(_env), do: []

  # The named scenarios, and some VMs that tests start, run in the small host of the demo.
  defp elixirc_paths(:test),
    do: ["lib", "test/support", Path.expand("../../examples/host", __DIR__)]

  defp elixirc_paths(_env), do: ["lib"]
end
