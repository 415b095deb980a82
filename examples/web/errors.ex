defmodule Demo.Web.Errors do
  @moduledoc false
  # An error page has the status message only.

  @spec render(String.t(), map()) :: String.t()
  def render(template, _assigns), do: Phoenix.Controller.status_message_from_template(template)
end
