defmodule PlausibleWeb.Live.WebhookSettings.Snippets do
  @moduledoc false
  # A curl line that sends a request again, and code in six languages that verifies
  # it, filled with its values. Never with a secret: that is read from the
  # environment. Whatever bytes are in the values, the text is ASCII that a shell or a
  # compiler reads as exactly those bytes: a name that holds markup, quotes or
  # characters that turn the direction can neither run nor hide anything.

  @languages [
    node: "Node.js",
    python: "Python",
    php: "PHP",
    ruby: "Ruby",
    go: "Go",
    elixir: "Elixir"
  ]

  @type request :: %{
          url: String.t(),
          headers: [{String.t(), String.t()}],
          body: binary(),
          timestamp: integer()
        }

  @spec languages() :: keyword(String.t())
  def languages, do: @languages

  @doc "The language of that name, or `nil`."
  @spec language(term()) :: atom() | nil
  def language(name),
    do: Enum.find_value(@languages, fn {key, _} -> to_string(key) == name && key end)

  # What a system takes as one argument of a command has an end; for `printf`, which is
  # the shell's own, it has none.
  @argument_max 65_536

  @doc "For bash and zsh."
  @spec curl(request()) :: String.t()
  def curl(%{body: body} = request) do
    headers = for {name, value} <- request.headers, do: ["-H ", shell("#{name}: #{value}")]
    post = ["curl -g -i -X POST", shell(request.url)] ++ headers

    # `@` at the beginning would name a file; a JSON object has none.
    parts =
      if byte_size(body) <= @argument_max,
        do: post ++ ["--data-binary " <> shell(body)],
        else: ["printf %s " <> shell(body) <> " |" | post] ++ ["--data-binary @-"]

    parts |> Enum.intersperse(" \\\n  ") |> IO.iodata_to_binary()
  end

  @spec verify(atom(), request()) :: String.t()
  def verify(language, request) do
    language
    |> template()
    |> String.replace("{{id}}", literal(language, header(request, "webhook-id")))
    |> String.replace("{{timestamp}}", literal(language, header(request, "webhook-timestamp")))
    |> String.replace("{{signature}}", literal(language, header(request, "webhook-signature")))
    |> String.replace("{{body}}", bytes(language, literal(language, request.body)))
    |> String.trim_trailing()
  end

  defp header(request, name) do
    Enum.find_value(request.headers, "", fn {given, value} ->
      String.downcase(given) == name && value
    end)
  end

  defp shell(text) do
    if text =~ ~r/\A[\x20-\x7e]*\z/ do
      "'" <> String.replace(text, "'", ~S('\'')) <> "'"
    else
      "$'" <> escaped(text, ~c"'", &"\\x#{&1}") <> "'"
    end
  end

  # A literal of that language. What may begin an interpolation is escaped too.
  defp literal(:python, text), do: "\"" <> escaped(text, ~c"\"", &"\\x#{&1}") <> "\""
  defp literal(:php, text), do: "\"" <> escaped(text, ~c"\"$", &"\\x#{&1}") <> "\""
  defp literal(_language, text), do: "\"" <> escaped(text, ~c"\"", &"\\x#{&1}", ~c"#") <> "\""

  # `quoted` get a backslash, as the backslash itself; `as_bytes` and what is not
  # visible ASCII are written as bytes.
  defp escaped(text, quoted, byte, as_bytes \\ []) do
    for <<char <- text>>, into: "" do
      cond do
        char == ?\\ or char in quoted -> <<?\\, char>>
        char in 0x20..0x7E and char not in as_bytes -> <<char>>
        true -> byte.(char |> Integer.to_string(16) |> String.pad_leading(2, "0"))
      end
    end
  end

  defp bytes(:node, literal), do: "Buffer.from(#{literal}, \"latin1\")"
  defp bytes(:python, literal), do: "b" <> literal
  defp bytes(:go, literal), do: "[]byte(#{literal})"
  defp bytes(:ruby, literal), do: literal <> ".b"
  defp bytes(_language, literal), do: literal

  defp template(:node) do
    """
    const { createHmac, timingSafeEqual } = require("node:crypto");

    const id = {{id}};
    const timestamp = {{timestamp}};
    const signatures = {{signature}};
    const body = {{body}}; // raw, before it is parsed

    const key = Buffer.from(process.env.WEBHOOK_SECRET.replace(/^whsec_/, ""), "base64");
    const mac = createHmac("sha256", key).update(`${id}.${timestamp}.`).update(body).digest();
    const verified = signatures.split(" ").some((signature) => {
      const given = Buffer.from(signature.replace(/^v1,/, ""), "base64");
      return signature.startsWith("v1,") && given.length === mac.length && timingSafeEqual(given, mac);
    });
    const age = Math.abs(Date.now() / 1000 - Number(timestamp)); // refuse more than 300
    console.log(verified ? "verified" : "NOT verified", `${Math.round(age)} s old`);
    """
  end

  defp template(:python) do
    """
    import base64, hashlib, hmac, os, time

    id = {{id}}
    timestamp = {{timestamp}}
    signatures = {{signature}}
    body = {{body}}  # raw, before it is parsed

    key = base64.b64decode(os.environ["WEBHOOK_SECRET"][len("whsec_"):])
    mac = hmac.new(key, f"{id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    expected = "v1," + base64.b64encode(mac).decode()
    verified = any(hmac.compare_digest(s.encode(), expected.encode()) for s in signatures.split(" "))
    age = abs(time.time() - int(timestamp))  # refuse more than 300
    print("verified" if verified else "NOT verified", f"{age:.0f} s old")
    """
  end

  defp template(:php) do
    """
    <?php
    $id = {{id}};
    $timestamp = {{timestamp}};
    $signatures = {{signature}};
    $body = {{body}}; // raw, before it is parsed

    $key = base64_decode(substr(getenv("WEBHOOK_SECRET"), strlen("whsec_")));
    $expected = "v1," . base64_encode(hash_hmac("sha256", "$id.$timestamp.$body", $key, true));
    $verified = false;
    foreach (explode(" ", $signatures) as $signature) {
        $verified = hash_equals($expected, $signature) || $verified;
    }
    $age = abs(time() - (int) $timestamp); // refuse more than 300
    echo $verified ? "verified" : "NOT verified", " $age s old\\n";
    """
  end

  defp template(:ruby) do
    """
    require "openssl"
    require "base64"

    id = {{id}}
    timestamp = {{timestamp}}
    signatures = {{signature}}
    body = {{body}} # raw, before it is parsed

    key = Base64.strict_decode64(ENV.fetch("WEBHOOK_SECRET").delete_prefix("whsec_"))
    mac = OpenSSL::HMAC.digest("SHA256", key, id + "." + timestamp + "." + body)
    expected = "v1," + Base64.strict_encode64(mac)
    verified = signatures.split(" ").any? { |signature| OpenSSL.secure_compare(signature, expected) }
    age = (Time.now.to_i - timestamp.to_i).abs # refuse more than 300
    puts (verified ? "verified" : "NOT verified") + " " + age.to_s + " s old"
    """
  end

  defp template(:go) do
    """
    package main

    import (
    	"crypto/hmac"
    	"crypto/sha256"
    	"encoding/base64"
    	"fmt"
    	"os"
    	"strings"
    )

    func main() {
    	id := {{id}}
    	timestamp := {{timestamp}} // refuse one that is more than 300 s off
    	signatures := {{signature}}
    	body := {{body}} // raw, before it is parsed

    	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(os.Getenv("WEBHOOK_SECRET"), "whsec_"))
    	if err != nil {
    		panic(err)
    	}
    	mac := hmac.New(sha256.New, key)
    	mac.Write([]byte(id + "." + timestamp + "."))
    	mac.Write(body)
    	expected := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
    	verified := false
    	for _, signature := range strings.Split(signatures, " ") {
    		verified = hmac.Equal([]byte(signature), []byte(expected)) || verified
    	}
    	fmt.Println("verified:", verified)
    }
    """
  end

  defp template(:elixir) do
    """
    id = {{id}}
    timestamp = {{timestamp}}
    signatures = {{signature}}
    # Raw, before it is parsed.
    body = {{body}}

    "whsec_" <> key = System.fetch_env!("WEBHOOK_SECRET")
    mac = :crypto.mac(:hmac, :sha256, Base.decode64!(key), [id, ".", timestamp, ".", body])
    expected = "v1," <> Base.encode64(mac)
    # In an application: Plug.Crypto.secure_compare/2 instead of ==.
    verified = signatures |> String.split(" ") |> Enum.any?(&(&1 == expected))
    # Refuse more than 300.
    age_s = abs(System.system_time(:second) - String.to_integer(timestamp))
    IO.puts((if verified, do: "verified", else: "NOT verified") <> " " <> to_string(age_s) <> " s old")
    """
  end
end
