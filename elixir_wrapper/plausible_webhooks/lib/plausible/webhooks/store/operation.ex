defmodule Plausible.Webhooks.Store.Operation do
  @moduledoc false

  @doc """
  Defines an operation of the store twice: as a callback that gets the store's handle first,
  and as a function that gets the instance first and calls the callback by `call/3`.

      operation get_webhook(id :: Webhook.id()) :: {:ok, Webhook.t()} | error()
  """
  defmacro operation({:"::", _meta, [{name, _, arguments}, result]}) do
    names = for {:"::", _, [{argument, _, _}, _type]} <- arguments, do: Macro.var(argument, nil)

    quote do
      @callback unquote(name)(handle(), unquote_splicing(arguments)) :: unquote(result)
      @spec unquote(name)(instance(), unquote_splicing(arguments)) :: unquote(result)
      def unquote(name)(instance, unquote_splicing(names)),
        do: call(instance, unquote(name), unquote(names))
    end
  end
end
