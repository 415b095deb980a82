defmodule PlausibleWeb.Live.WebhookSettings.Context do
  @moduledoc false
  # The site, the actor, the address and the settings of a view, from its session. The session
  # is signed. Even so, only modules that exist and have the right callbacks are taken from it.

  alias Plausible.Webhooks.Runtime.Instance
  alias PlausibleWeb.Live.WebhookSettings.{NotFound, Unavailable}

  @enforce_keys [:instance, :site_id, :actor, :path, :view, :query]
  defstruct [
    :instance,
    :site_id,
    :actor,
    :pubsub,
    :script,
    :nonce,
    :path,
    :view,
    :query,
    :test_address
  ]

  @type t :: %__MODULE__{}

  @doc """
  Raises `NotFound` without an actor, and `Unavailable` while the instance is not running:
  without it nobody can be asked for permissions.
  """
  @spec from!(map(), Phoenix.LiveView.Socket.t()) :: t()
  def from!(%{"site_id" => site_id, "path" => path} = session, socket) when is_integer(site_id) do
    with {:ok, auth} <- module(session["auth"]),
         true <- Code.ensure_loaded?(auth) and function_exported?(auth, :actor, 2),
         {:ok, actor} <- auth.actor(session, socket),
         {:ok, instance} <- module(session["instance"] || "Plausible.Webhooks") do
      Instance.get(instance) || raise Unavailable

      %__MODULE__{
        instance: instance,
        site_id: site_id,
        actor: actor,
        pubsub: pubsub(session["pubsub"]),
        script: if(session["script"] == "host", do: :host, else: :page),
        nonce: session["nonce"],
        path: path,
        view: session["view"],
        query: session["query"],
        test_address: session["test_address"]
      }
    else
      _nobody -> raise NotFound
    end
  end

  def from!(_session, _socket), do: raise(NotFound)

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
