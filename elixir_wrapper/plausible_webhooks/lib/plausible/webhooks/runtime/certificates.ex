defmodule Plausible.Webhooks.Runtime.Certificates do
  @moduledoc false
  # Whether this machine has certificate authorities. Without them every delivery over TLS
  # fails, and the receivers would seem to be at fault.

  require Logger

  # Where the engine looks (c_src/core/curl_handles.cpp), in this order.
  @bundles ~w(/etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt
              /etc/ssl/ca-bundle.pem /etc/ssl/cert.pem
              /etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem)

  @spec bundles() :: [Path.t()]
  def bundles, do: @bundles

  @doc "Whether one of the files exists. The option `:ca_file` was checked already."
  @spec found?(Path.t() | nil, [Path.t()]) :: boolean()
  def found?(ca_file, bundles \\ @bundles)
  def found?(nil, bundles), do: Enum.any?(bundles, &File.regular?/1)
  def found?(_ca_file, _bundles), do: true

  @doc "Logs an error that names the missing package and the paths that were tried."
  @spec check(Path.t() | nil, [Path.t()]) :: :ok
  def check(ca_file, bundles \\ @bundles) do
    unless found?(ca_file, bundles) do
      Logger.error(
        "webhooks: no certificate authorities on this machine, so every delivery over HTTPS " <>
          "will fail. Install the package ca-certificates, which takes effect at once, or set " <>
          "ca_file. Looked for #{Enum.join(bundles, ", ")}"
      )
    end

    :ok
  end
end
