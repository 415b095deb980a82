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

  # Calls the NIF with arguments of which those at some indexes are replaced.
  defp call(name, arguments, changes) do
    arguments =
      Enum.reduce(changes, arguments, fn {i, x}, list -> List.replace_at(list, i, x) end)

    apply(Native, name, arguments)
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
        assert Native.sign([@secret], id, unix_seconds, body) ==
                 {:ok, hmac(@secret, id, unix_seconds, body)}
      end

      {:ok, header} = Native.sign([@secret, @other], "msg_1", @now, "b")
      assert header == Enum.map_join([@secret, @other], " ", &hmac(&1, "msg_1", @now, "b"))
    end

    test "a part of a larger binary is signed as that part" do
      <<_::binary-size(3), body::binary-size(100), _::binary>> = whole = :binary.copy("abcde", 60)
      {:ok, header} = Native.sign([@secret], binary_part(whole, 0, 10), @now, body)
      assert header == hmac(@secret, binary_part(whole, 0, 10), @now, :binary.copy(body))
    end

    test "operational errors are atoms, wrong types raise" do
      good = [[@secret], "a", @now, "b"]

      for {index, value, reason} <- [
            {0, [], :no_keys},
            {0, List.duplicate(@secret, 11), :too_many_keys},
            {0, [@secret, ""], :invalid_key},
            {0, ["whsk_" <> Base.encode64(<<0::512>>)], :invalid_key},
            {1, "a.b", :invalid_id},
            {1, "", :invalid_id},
            {2, -1, :invalid_timestamp}
          ],
          do: assert(call(:sign, good, %{index => value}) == {:error, reason})

      for {index, values} <- [
            {0, [@secret, [String.to_charlist(@secret)], [:secret], [@secret | "tail"], %{}]},
            {1, [:a, nil]},
            {2, [1.0, "1", 18_446_744_073_709_551_616]},
            {3, [["b"], nil, <<1::3>>]}
          ],
          value <- values,
          do: assert_raise(ArgumentError, fn -> call(:sign, good, %{index => value}) end)
    end
  end

  describe "verify/7" do
    test "accepts its own and a stranger's signatures, of bodies of any size" do
      for body <- [~s({"type":"webhook.test"}), :crypto.strong_rand_bytes(1_000_000)] do
        {:ok, header} = Native.sign([@secret], "msg_1", @now, body)
        {:ok, wrong} = Native.sign([@other], "msg_1", @now, body)
        header = String.duplicate(wrong <> " ", 20) <> header
        stranger = "v1,AAAA v9,x " <> hmac(@other, "msg_1", @now, body)
        good = [[@secret], "msg_1", @now, header, body, @now, 0]
        assert call(:verify, good, %{}) == :ok
        assert call(:verify, good, %{0 => [@other, @secret]}) == :ok
        assert call(:verify, good, %{0 => [@other], 3 => stranger}) == :ok
        assert call(:verify, good, %{4 => body <> " "}) == {:error, :no_match}
      end
    end

    test "operational errors are atoms, wrong types raise" do
      good = [[@secret], "a", @now, hmac(@secret, "a", @now, "b"), "b", @now, 300]

      for {index, value, expected} <- [
            {5, @now + 300, :ok},
            {5, @now + 301, {:error, :timestamp_too_old}},
            {5, @now - 300, :ok},
            {5, @now - 301, {:error, :timestamp_too_new}},
            {0, [], {:error, :no_keys}},
            {0, ["x"], {:error, :invalid_key}},
            {3, "", {:error, :invalid_header}},
            {3, String.duplicate("v1,x ", 1000), {:error, :invalid_header}}
          ],
          do: assert(call(:verify, good, %{index => value}) == expected)

      for {index, wrong} <- [{0, nil}, {1, 1}, {2, 1.5}, {3, ~c"v1"}, {4, :b}, {5, nil}, {6, -1}],
          do: assert_raise(ArgumentError, fn -> call(:verify, good, %{index => wrong}) end)
    end
  end

  test "generated secrets are fresh, of the right size, and sign" do
    assert {:ok, "whsec_" <> base64 = secret} = Native.generate_secret()
    assert byte_size(Base.decode64!(base64)) == 32
    assert {:ok, _} = Native.sign([secret], "a", @now, "b")
    refute Native.generate_secret() == {:ok, secret}
  end

  test "many processes sign at once" do
    1..8
    |> Enum.map(fn i ->
      Task.async(fn ->
        for n <- 1..200 do
          body = :binary.copy("x", n * i)

          assert Native.sign([@secret], "m#{n}", @now, body) ==
                   {:ok, hmac(@secret, "m#{n}", @now, body)}
        end
      end)
    end)
    |> Task.await_many(30_000)
  end
end
