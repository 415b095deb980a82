defmodule Plausible.Webhooks.Terms do
  @moduledoc false
  # What a term is, for whoever may be called with anything.

  @doc "A list that ends in an empty one: what `Enum` can go through."
  @spec proper_list?(term()) :: boolean()
  def proper_list?(term), do: is_list(term) and not List.improper?(term)
end
