defmodule Plausible.Webhooks.PeerDeliveriesTest do
  # A thousand deliveries, as they arrived, through somebody else's verifier: the
  # npm package standardwebhooks.
  use Plausible.Webhooks.Test.InstanceCase, async: false

  alias Plausible.Webhooks.Test.Peer

  @moduletag timeout: 180_000

  # Bodies: empty, every width of UTF-8, characters that need escapes, large ones.
  defp body(n) do
    case rem(n, 5) do
      0 -> ""
      1 -> ~s({"n":#{n},"text":"plain"})
      2 -> ~s({"n":#{n},"text":"é Ж 語 😀 \u2028\u0000end"})
      3 -> ~s({"n":#{n},"text":"#{String.duplicate("語é😀x", 400)}"})
      4 -> if rem(n, 50) == 4, do: String.duplicate("ü0123456789abc.", 13_000), else: "[#{n}]"
    end
  end

  defp send!(context, webhook, range, arrived) do
    deliveries = for n <- range, do: delivery(webhook, body: body(n))

    for part <- Enum.chunk_every(deliveries, 100),
        do: :ok = Outbox.accept(context.name, part)

    requests = HttpReceiver.await(context.receiver, "/peer", arrived + length(deliveries), 60_000)

    Enum.take(requests, -length(deliveries))
  end

  defp live_keys(context, webhook) do
    {:ok, secrets} = reveal_secret(context, webhook.id)
    Enum.map(secrets, & &1.key)
  end

  defp messages(requests, secret) do
    for request <- requests, do: Peer.message(request, secret)
  end

  test "each of 1 000 deliveries is verified: one secret, two live ones, a rotated one",
       context do
    context = start!(context, lane_rate_per_s: 100_000, lane_in_flight_max: 32)
    webhook = webhook!(context, "/peer")
    [first] = live_keys(context, webhook)
    one = send!(context, webhook, 1..400, 0)

    overlap = :timer.hours(24)
    {:ok, webhook} = rotate_secret(context, webhook.id, overlap)
    [second, ^first] = live_keys(context, webhook)
    two = send!(context, webhook, 401..800, 400)

    {:ok, webhook} = rotate_secret(context, webhook.id, 0)
    [third] = live_keys(context, webhook)
    three = send!(context, webhook, 801..1000, 800)

    {old, new} = Enum.split(two, 200)

    good =
      messages(one, first) ++
        messages(old, first) ++ messages(new, second) ++ messages(three, third)

    with {output, status} <- Peer.run("verify", good, context.dir) do
      assert {output, status} == {"1000 passed, 0 failed\n", 0}
      # A secret that was rotated away verifies nothing any more.
      assert {"0 passed, 200 failed\n", 1} ==
               Peer.run("verify", messages(three, first), context.dir)
    end

    assert length(Enum.uniq_by(one ++ two ++ three, & &1.headers["webhook-id"])) == 1_000
    assert Enum.all?(two, &(length(String.split(&1.headers["webhook-signature"])) == 2))
    assert Enum.any?(one, &(byte_size(&1.body) > 200 * 1024))
    assert Enum.any?(one, &(&1.body == ""))
  end
end
