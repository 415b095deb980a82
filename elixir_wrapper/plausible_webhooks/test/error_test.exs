defmodule Plausible.Webhooks.ErrorTest do
  use ExUnit.Case, async: true

  alias Plausible.Webhooks.Error

  doctest Error

  test "every reason has a message" do
    assert Exception.message(%Error{reason: :forbidden}) == "the actor may not do this"
    assert Exception.message(%Error{reason: {:rate_limited, 20}}) =~ "20 ms"
    assert Exception.message(%Error{reason: {:not_sent, "webhook_deleted"}}) =~ "webhook_deleted"
    assert Exception.message(%Error{reason: {:away, :x}}) == "{:away, :x}"
  end
end
