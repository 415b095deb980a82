<?php
// composer require standard-webhooks/standard-webhooks
// WEBHOOK_SECRET=whsec_... php -S 127.0.0.1:3000 receiver.php
require_once "vendor/autoload.php";

use StandardWebhooks\Exception\WebhookVerificationException;
use StandardWebhooks\Webhook;

$headers = array_change_key_case(getallheaders());
$id = $headers["webhook-id"] ?? "";

try {
    $event = (new Webhook(getenv("WEBHOOK_SECRET")))->verify(file_get_contents("php://input"), $headers);
    error_log("accepted $id " . $event["type"]);
    http_response_code(204);
} catch (WebhookVerificationException $error) {
    error_log("refused $id " . $error->getMessage());
    http_response_code(401);
}
