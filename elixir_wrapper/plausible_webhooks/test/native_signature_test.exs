defmodule Plausible.Webhooks.NativeSignatureTest do
  use ExUnit.Case, async: true

  alias Plausible.Webhooks.Native

  @now 1_700_000_000
  @secret "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
  @other "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"

  # What a receiver does, with nothing of ours.
  defp hmac("whsec_" <> key, id, unix_seconds, body) do
    text = "#{id}.#{unix_seconds}." <> body
    "v1," <> Base.encode64(:crypto.mac(:hmac, :sha256, Base.decode64!(key), text))
  end

  describe "sign/4" do
    test "is what OTP's crypto computes" do
      for {id, unix_seconds, body} <- [
            {"msg_1", @now, ~s({"a":1})},
            {"msg_2", 0, ""},
            {"msg_3", 9_223_372_036_854_775_807, <<0, 255, 0>>},
            {String.duplicate("i", 255), @now, :binary.copy("é", 500)},
            {"msg_big", @now, :crypto.strong_rand_bytes(300_000)}
          ] do
        assert {:ok, header} = Native.sign([@secret], id, @now, body)
        assert header == hmac(@secret, id, @now, body)
        assert {:ok, header} = Native.sign([@secret], id, unix_seconds, body)
        assert header == hmac(@secret, id, unix_seconds, body)
      end
    end

    test "every key signs, in their order" do
      {:ok, header} = Native.sign([@secret, @other], "msg_1", @now, "b")
      assert header == Enum.map_join([@secret, @other], " ", &hmac(&1, "msg_1", @now, "b"))
    end

    test "a part of a larger binary is signed as that part" do
      <<_::binary-size(3), body::binary-size(100), _::binary>> = whole = :binary.copy("abcde", 60)
      {:ok, header} = Native.sign([@secret], binary_part(whole, 0, 10), @now, body)
      assert header == hmac(@secret, binary_part(whole, 0, 10), @now, :binary.copy(body))
    end

    test "operational errors are atoms" do
      assert Native.sign([], "a", @now, "") == {:error, :no_keys}
      assert Native.sign(List.duplicate(@secret, 11), "a", @now, "") == {:error, :too_many_keys}
      assert Native.sign(["whsec_short"], "a", @now, "") == {:error, :invalid_key}
      assert Native.sign([@secret, ""], "a", @now, "") == {:error, :invalid_key}

      assert Native.sign(["whsk_" <> Base.encode64(<<0::512>>)], "a", 1, "") ==
               {:error, :invalid_key}

      assert Native.sign([@secret], "a.b", @now, "") == {:error, :invalid_id}
      assert Native.sign([@secret], "", @now, "") == {:error, :invalid_id}
      assert Native.sign([@secret], "a", -1, "") == {:error, :invalid_timestamp}
    end

    test "wrong types raise" do
      for arguments <- [
            [@secret, "a", @now, "b"],
            [[String.to_charlist(@secret)], "a", @now, "b"],
            [[:secret], "a", @now, "b"],
            [[@secret | "tail"], "a", @now, "b"],
            [%{}, "a", @now, "b"],
            [[@secret], :a, @now, "b"],
            [[@secret], nil, @now, "b"],
            [[@secret], "a", 1.0, "b"],
            [[@secret], "a", "1", "b"],
            [[@secret], "a", 18_446_744_073_709_551_616, "b"],
            [[@secret], "a", @now, ["b"]],
            [[@secret], "a", @now, nil],
            [[@secret], "a", @now, <<1::3>>]
          ] do
        assert_raise ArgumentError, fn -> apply(Native, :sign, arguments) end
      end
    end
  end

  describe "verify/7" do
    test "accepts its own and a stranger's signatures" do
      body = ~s({"type":"webhook.test"})
      {:ok, header} = Native.sign([@secret], "msg_1", @now, body)
      assert Native.verify([@secret], "msg_1", @now, header, body, @now, 300) == :ok
      assert Native.verify([@other, @secret], "msg_1", @now, header, body, @now, 300) == :ok

      assert Native.verify([@secret], "msg_1", @now, header, body <> " ", @now, 300) ==
               {:error, :no_match}

      stranger = "v1,AAAA v9,x " <> hmac(@other, "msg_1", @now, body)
      assert Native.verify([@other], "msg_1", @now, stranger, body, @now, 300) == :ok
    end

    test "large bodies and many entries" do
      body = :crypto.strong_rand_bytes(1_000_000)
      {:ok, good} = Native.sign([@secret], "msg_1", @now, body)
      {:ok, wrong} = Native.sign([@other], "msg_1", @now, body)
      header = String.duplicate(wrong <> " ", 20) <> good
      assert Native.verify([@secret], "msg_1", @now, header, body, @now, 0) == :ok
    end

    test "the tolerance holds to the second" do
      header = hmac(@secret, "a", @now, "b")
      verify = &Native.verify([@secret], "a", @now, header, "b", &1, 300)
      assert verify.(@now + 300) == :ok
      assert verify.(@now + 301) == {:error, :timestamp_too_old}
      assert verify.(@now - 300) == :ok
      assert verify.(@now - 301) == {:error, :timestamp_too_new}
    end

    test "operational errors are atoms" do
      header = hmac(@secret, "a", @now, "b")
      assert Native.verify([], "a", @now, header, "b", @now, 0) == {:error, :no_keys}
      assert Native.verify(["x"], "a", @now, header, "b", @now, 0) == {:error, :invalid_key}
      assert Native.verify([@secret], "a", @now, "", "b", @now, 0) == {:error, :invalid_header}

      assert Native.verify([@secret], "a", @now, String.duplicate("v1,x ", 1000), "b", @now, 0) ==
               {:error, :invalid_header}
    end

    test "wrong types raise" do
      good = [[@secret], "a", @now, "v1,x", "b", @now, 300]

      for {index, wrong} <- [{0, nil}, {1, 1}, {2, 1.5}, {3, ~c"v1"}, {4, :b}, {5, nil}, {6, -1}] do
        arguments = List.replace_at(good, index, wrong)
        assert_raise ArgumentError, fn -> apply(Native, :verify, arguments) end
      end
    end
  end

  describe "generated secrets" do
    test "are fresh, of the right size, and sign" do
      assert {:ok, "whsec_" <> base64 = secret} = Native.generate_secret()
      assert byte_size(Base.decode64!(base64)) == 32
      assert {:ok, _} = Native.sign([secret], "a", @now, "b")
      assert {:ok, ^secret} = {:ok, secret}
      refute Native.generate_secret() == {:ok, secret}
    end
  end

  test "many processes sign at once" do
    tasks =
      for i <- 1..8 do
        Task.async(fn ->
          for n <- 1..200 do
            id = "msg_#{i}_#{n}"
            body = :binary.copy("x", n * i)
            assert Native.sign([@secret], id, @now, body) == {:ok, hmac(@secret, id, @now, body)}
          end
        end)
      end

    Task.await_many(tasks, 30_000)
  end
end
