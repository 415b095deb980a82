defmodule Plausible.Webhooks.WebhookSecretTest do
  # The secrets of a webhook: which ones it takes, and their rotation.
  use ExUnit.Case, async: true

  alias Plausible.Webhooks.{Native, Webhook}

  @day_ms 86_400_000

  defp new(attributes) do
    defaults = %{url: "https://example.com/hook", events: ["goal.completed"]}
    Webhook.new(7, Map.merge(defaults, Map.new(attributes)), now_ms: 1_000)
  end

  defp webhook!(attributes \\ []) do
    assert {:ok, webhook} = new(attributes)
    webhook
  end

  defp errors(attributes) do
    assert {:error, errors} = new(attributes)
    errors
  end

  describe "secrets" do
    test "a customer's own is taken as it is" do
      for size <- [24, 32, 64] do
        key = "whsec_" <> Base.encode64(:crypto.strong_rand_bytes(size))
        assert [%{key: ^key}] = webhook!(secret: key).secrets
        # What we take, the signer takes.
        assert {:ok, "v1," <> _} = Native.sign([key], "msg_1", 1, "")
      end

      for nothing <- [nil, ""],
          do: assert([%{key: "whsec_" <> _}] = webhook!(secret: nothing).secrets)
    end

    test "a secret that the signer refuses is refused" do
      padded = Base.encode64(:crypto.strong_rand_bytes(32))

      for bad <- [
            "whsec_" <> Base.encode64(:crypto.strong_rand_bytes(23)),
            "whsec_" <> Base.encode64(:crypto.strong_rand_bytes(65)),
            "whsec_" <> String.trim_trailing(padded, "="),
            "whsec_" <> Base.url_encode64(String.duplicate(<<255>>, 32)),
            "whsec_ " <> padded,
            "WHSEC_" <> padded,
            padded,
            "whsk_" <> padded,
            # Bits that no byte uses.
            "whsec_" <> String.replace_suffix(Base.encode64(<<0::256>>), "A=", "B="),
            1,
            [padded]
          ] do
        assert errors(secret: bad).secret =~ "must be whsec_"

        if is_binary(bad) and not String.starts_with?(bad, "whsk_") do
          assert {:error, _reason} = Native.sign([bad], "msg_1", 1, "")
        end
      end
    end

    test "cannot be changed by change/3" do
      key = "whsec_" <> Base.encode64(<<0::256>>)

      assert Webhook.change(webhook!(), %{secret: key}) ==
               {:error, %{secret: "is not an attribute that can be set"}}
    end
  end

  describe "rotation" do
    test "both sign during the overlap, then the new one alone" do
      webhook = webhook!()
      [%{key: old}] = webhook.secrets
      {:ok, rotated} = Webhook.rotate_secret(webhook, 3_600_000, 10_000)
      [%{key: new, expires_at_ms: nil, created_at_ms: 10_000}, %{key: ^old}] = rotated.secrets
      assert rotated.updated_at_ms == 10_000
      assert new != old

      live = fn now_ms -> rotated |> Webhook.live_keys(now_ms) |> Enum.map(& &1.key) end
      assert live.(10_000) == [new, old]
      assert live.(10_000 + 3_599_999) == [new, old]
      assert live.(10_000 + 3_600_000) == [new]
    end

    test "the overlap is 24 h unless told, 0 to 7 days" do
      {:ok, rotated} = Webhook.rotate_secret(webhook!())
      [%{created_at_ms: now_ms}, %{expires_at_ms: expires_at_ms}] = rotated.secrets
      assert expires_at_ms - now_ms == @day_ms

      assert {:ok, %{secrets: [_, _]}} = Webhook.rotate_secret(webhook!(), 7 * @day_ms, 1)

      for bad <- [-1, 7 * @day_ms + 1, nil, 1.0, "1"] do
        assert Webhook.rotate_secret(webhook!(), bad, 1) == {:error, :invalid_overlap}
      end
    end

    test "without overlap every older one stops at once, also one of an earlier overlap" do
      {:ok, once} = Webhook.rotate_secret(webhook!(), @day_ms, 10)
      {:ok, %{secrets: [%{key: key, expires_at_ms: nil}]}} = Webhook.rotate_secret(once, 0, 20)
      assert key not in Enum.map(once.secrets, & &1.key)
    end

    test "a later rotation never prolongs an earlier overlap, and drops what has expired" do
      {:ok, first} = Webhook.rotate_secret(webhook!(), 1_000, 10)
      {:ok, second} = Webhook.rotate_secret(first, 5_000, 20)
      assert Enum.map(second.secrets, & &1.expires_at_ms) == [nil, 5_020, 1_010]
      {:ok, third} = Webhook.rotate_secret(second, 100, 1_010)
      assert Enum.map(third.secrets, & &1.expires_at_ms) == [nil, 1_110, 1_110]
    end

    test "ten at most" do
      ten =
        Enum.reduce(1..9, webhook!(), fn i, webhook ->
          {:ok, webhook} = Webhook.rotate_secret(webhook, @day_ms, i)
          webhook
        end)

      assert length(ten.secrets) == 10
      assert {:ok, _header} = Native.sign(Enum.map(ten.secrets, & &1.key), "msg_1", 1, "")
      assert Webhook.rotate_secret(ten, @day_ms, 10) == {:error, :too_many_secrets}
      assert {:ok, %{secrets: [_]}} = Webhook.rotate_secret(ten, 0, 10)
      assert {:ok, %{secrets: [_, _]}} = Webhook.rotate_secret(ten, @day_ms, 1 + @day_ms + 8)
    end

    test "to a secret of the customer's own" do
      own = "whsec_" <> Base.encode64(<<1::256>>)

      assert {:ok, %{secrets: [%{key: ^own}, _]} = rotated} =
               Webhook.rotate_secret(webhook!(), 100, 1, own)

      assert Webhook.rotate_secret(rotated, 100, 2, own) == {:error, :duplicate_secret}
      assert Webhook.rotate_secret(rotated, 100, 2, "whsec_x") == {:error, :invalid_secret}
      # Once it no longer signs it may come back.
      assert {:ok, %{secrets: [%{key: ^own}]}} = Webhook.rotate_secret(rotated, 0, 2, own)
    end
  end
end
