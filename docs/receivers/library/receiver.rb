# gem install standardwebhooks webrick
# WEBHOOK_SECRET=whsec_... PORT=3000 ruby receiver.rb
require "standardwebhooks"
require "webrick"

$stdout.sync = true
webhook = StandardWebhooks::Webhook.new(ENV.fetch("WEBHOOK_SECRET"))
port = ENV.fetch("PORT", "3000").to_i
listening = -> { puts "listening on http://127.0.0.1:#{port}" }
server = WEBrick::HTTPServer.new(
  BindAddress: "127.0.0.1", Port: port, AccessLog: [], StartCallback: listening
)

server.mount_proc("/") do |request, response|
  headers = %w[webhook-id webhook-timestamp webhook-signature].to_h { |name| [name, request[name]] }
  event = webhook.verify(request.body, headers)
  puts "accepted #{headers["webhook-id"]} #{event["type"]}"
  response.status = 204
rescue StandardWebhooks::WebhookVerificationError => error
  puts "refused #{headers["webhook-id"]} #{error.message}"
  response.status = 401
end

server.start
