# WEBHOOK_SECRET=whsec_... PORT=3000 ruby receiver.rb
require "json"
require "socket"
require_relative "verify"

SECRET = ENV.fetch("WEBHOOK_SECRET")

def accepted?(headers, body)
  id, timestamp, signatures =
    %w[webhook-id webhook-timestamp webhook-signature].map { |name| headers.fetch(name, "") }
  genuine = verified?(SECRET, id, timestamp, signatures, body)
  genuine && (Time.now.to_i - timestamp.to_i).abs <= 300
end

# With Rack or Rails, request.body.read is the raw body.
def answer(client)
  client.gets
  headers = {}
  while (line = client.gets&.chomp) && !line.empty?
    name, value = line.split(": ", 2)
    headers[name.downcase] = value
  end
  body = client.read(headers.fetch("content-length", "0").to_i)

  if accepted?(headers, body)
    # Store the event under its id, and do the work after the answer.
    puts "accepted #{headers["webhook-id"]} #{JSON.parse(body)["type"]}"
    client.write "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"
  else
    puts "refused #{headers["webhook-id"]}"
    client.write "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
  end
ensure
  client.close
end

$stdout.sync = true
server = TCPServer.new("127.0.0.1", ENV.fetch("PORT", "3000").to_i)
puts "listening on http://127.0.0.1:#{server.addr[1]}"
loop { Thread.new(server.accept) { |client| answer(client) } }
