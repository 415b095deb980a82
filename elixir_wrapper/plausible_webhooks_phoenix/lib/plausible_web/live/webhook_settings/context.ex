defmodule PlausibleWeb.Live.WebhookSettings.Context do
  @moduledoc false
  # The site, the actor and the settings of a page, from its session. The session is signed.
  # Even so, only modules that exist and have the right callbacks are taken from it.

  alias Plausible.Webhooks.Runtime.Instance

  @enforce_keys [:instance, :site_id, :actor]
  defstruct [:instance, :site_id, :actor, :pubsub, :copy, :nonce]

  @type t :: %__MODULE__{}

  @doc """
  Returns `:not_found` without an actor, and `:unavailable` while the instance is not
  running: without it nobody can be asked for permissions.
  """
  @spec from(map(), Phoenix.LiveView.Socket.t()) ::
          {:ok, t()} | {:error, :not_found | :unavailable}
  def from(%{"site_id" => site_id} = session, socket) when is_integer(site_id) do
    with {:ok, auth} <- module(session["auth"]),
         true <- Code.ensure_loaded?(auth) and function_exported?(auth, :actor, 2),
         {:ok, actor} <- auth.actor(session, socket),
         {:ok, instance} <- module(session["instance"] || "Plausible.Webhooks") do
      if Instance.get(instance),
        do: {:ok, context(session, instance, site_id, actor)},
        else: {:error, :unavailable}
    else
      _nobody -> {:error, :not_found}
    end
  end

  def from(_session, _socket), do: {:error, :not_found}

  defp context(session, instance, site_id, actor) do
    %__MODULE__{
      instance: instance,
      site_id: site_id,
      actor: actor,
      pubsub: pubsub(session["pubsub"]),
      copy: %{true => :host, "page" => :page}[session["copy"]],
      nonce: session["nonce"]
    }
  end

  # Without a running PubSub the page polls.
  defp pubsub(name) do
    with {:ok, pubsub} <- module(name), true <- is_pid(Process.whereis(pubsub)) do
      pubsub
    else
      _none -> nil
    end
  end

  # As `inspect/1` or `Atom.to_string/1` prints a module or an atom.
  defp module(":" <> name), do: existing(name)
  defp module("Elixir." <> _ = name), do: existing(name)
  defp module(name) when is_binary(name), do: existing("Elixir." <> name)
  defp module(_other), do: :error

  defp existing(name) do
    {:ok, String.to_existing_atom(name)}
  rescue
    ArgumentError -> :error
  end
end
