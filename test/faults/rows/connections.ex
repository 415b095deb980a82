defmodule Plausible.Webhooks.Faults.Rows.Connections do
  @moduledoc false
  # What a peer does to the connection, and how it asks for a pause.

  alias Plausible.Webhooks.Faults.Row

  @line "HTTP/1.1 200 OK\r\n"
  @ok "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
  @hour_s 3_600
  # Told no time to wait, we wait as we see fit.
  @soon :any
  # Curl would send the request again over another connection, and tell nobody. Now that is
  # another attempt.
  @again [retry_in_s: :any, first: true]

  def rows, do: connections() ++ kept_alive() ++ retry_after()

  defp connections do
    Row.all(:connection, [
      {"nobody listens", :nobody, :connection_refused},
      {"nobody accepts", {:listen, :backlog}, :connect_timeout, detail: "no connection in time"},
      {"accepts late", {:listen, {:late, 300, [:request, {:send, @ok}, :again]}}, :delivered},
      {"reset at once", {:http, [:reset]}, :connection_reset},
      {"closed at once", {:http, [:close]}, :connection_reset},
      {"half closed at once", {:http, [:shutdown, :request, :gone]}, :connection_reset},
      {"reset within the request", {:http, [:head, :reset]}, :connection_reset},
      {"reset after the request", {:http, [:request, :reset]}, :connection_reset},
      {"reset after the status line", {:http, [:request, {:send, @line}, :reset]},
       :connection_reset},
      {"reset within the headers", {:http, [:request, {:send, @line <> "x-a:"}, :reset]},
       :connection_reset},
      {"reset within the body",
       {:http, [:request, {:send, @line <> "content-length: 9\r\n\r\nab"}, {:wait, 50}, :reset]},
       :delivered},
      {"reset after the answer", {:http, [:request, {:send, @ok}, {:wait, 50}, :reset]},
       :delivered},
      {"half closed after the answer",
       {:http, [:request, {:send, @line <> "\r\nok"}, :shutdown, :gone]}, :delivered, body: "ok"},
      {"half closed instead of an answer", {:http, [:request, :shutdown, :gone]},
       :connection_reset},
      {"answers and reads nothing", {:http, [{:send, @ok}, {:wait, 200}, :close]},
       [:delivered, :connection_reset, :protocol_error]},
      {"never reads", {:http, [{:wait, 60_000}, :close]}, :timeout, detail: "no answer in time"},
      {"answer of another protocol, endless",
       {:http, [:request, {:endless, :binary.copy("x", 16_384)}]}, :protocol_error, prompt: true}
    ])
  end

  defp kept_alive do
    closed = [:connection_closed, :connection_reset]
    second = &{:http, [:request, {:send, @ok}, :request | &1]}

    Row.all(:kept_alive, [
      {"closed after the answer", {:http, [:request, {:send, @ok}, :close]}, :delivered,
       first: true},
      {"408 on the idle connection",
       {:http, [:request, {:send, @ok <> "HTTP/1.1 408 X\r\ncontent-length: 0\r\n\r\n"}, :close]},
       :delivered, first: true},
      {"closed on the second request", second.([:close]), closed, @again},
      {"reset on the second request", second.([:reset]), closed, @again},
      {"reset within the second request", {:http, [:request, {:send, @ok}, :head, :reset]},
       closed, @again},
      {"silent on the second request", second.([:gone]), :timeout, first: true},
      {"half an answer to the second request",
       second.([{:send, "HTTP/1.1 2"}, {:wait, 20}, :reset]), [:protocol_error | closed], @again},
      {"500 and closed on the second request",
       second.([{:send, "HTTP/1.1 500 X\r\n\r\n"}, :close]), :http_status,
       first: true, status: 500}
    ])
  end

  # No pause is longer than six hours, and none shorter than the schedule.
  defp retry_after do
    shapes = [
      {"in an hour", "#{@hour_s}", @hour_s},
      {"in an hour, with spaces", "   #{@hour_s}  ", @hour_s},
      {"by date", "%a, %d %b %Y %H:%M:%S GMT", @hour_s},
      {"by date of RFC 850", "%A, %d-%b-%y %H:%M:%S GMT", @hour_s},
      {"by date of asctime", "%a %b %d %H:%M:%S %Y", @hour_s},
      {"in a week", "604800", 6 * @hour_s},
      {"beyond 64 bits", String.duplicate("9", 40), 6 * @hour_s},
      {"at once", "0", @soon},
      {"sooner than we would", "2", @soon},
      {"negative", "-3600", @soon},
      {"by a date long past", "Thu, 01 Jan 1970 00:00:00 GMT", @soon},
      {"by an impossible date", "Fri, 62000000 Dec9 23:59", @soon},
      {"on the 31st of February", "Mon, 31 Feb 2099 00:00:00 GMT", :any},
      {"in the year 999999999", "Mon, 01 Jan 999999999 00:00:00 GMT", :any},
      {"empty", "", @soon},
      {"in words", "soon", @soon},
      {"with a fraction", "1.5", @soon},
      {"in hexadecimal", "0xE10", @soon},
      {"as a list", "3600, 7200", :any},
      {"of 10 KB", :binary.copy("1", 10_000), :any}
    ]

    rows =
      for {shape, value, retry_in_s} <- shapes, status <- [429, 503] do
        {"#{status}, retry-after #{shape}", pause(status, [value]), :http_status,
         status: status, retry_in_s: retry_in_s, held: true}
      end

    Row.all(
      :retry_after,
      rows ++
        [
          {"429 without retry-after", pause(429, []), :http_status,
           status: 429, retry_in_s: @soon, held: true},
          {"429, two of them", pause(429, ["#{@hour_s}", "7200"]), :http_status,
           status: 429, retry_in_s: :any, held: true}
        ]
    )
  end

  # A value with "%" is the form of a date, an hour from the answer.
  defp pause(status, values) do
    answer = fn _request ->
      in_an_hour = DateTime.add(DateTime.utc_now(), @hour_s, :second)
      lines = for value <- values, do: "retry-after: #{in_form(value, in_an_hour)}\r\n"
      [{:send, ["HTTP/1.1 #{status} X\r\ncontent-length: 0\r\n", lines, "\r\n"]}, :again]
    end

    {:http, [{:request, answer}]}
  end

  defp in_form(value, time),
    do: if(value =~ "%", do: Calendar.strftime(time, value), else: value)
end
