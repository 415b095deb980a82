defmodule Demo.Web.Errors do
  @moduledoc false
  # What is not found says no more than that.

  @spec render(String.t(), map()) :: String.t()
  def render(template, _assigns), do: Phoenix.Controller.status_message_from_template(template)
end
