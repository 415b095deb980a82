<?php
// WEBHOOK_SECRET=whsec_... php -S 127.0.0.1:3000 receiver.php
require_once __DIR__ . "/verify.php";

$body = file_get_contents("php://input"); // raw: $request->getContent() in Laravel and Symfony
$id = $_SERVER["HTTP_WEBHOOK_ID"] ?? "";
$timestamp = $_SERVER["HTTP_WEBHOOK_TIMESTAMP"] ?? "";
$signatures = $_SERVER["HTTP_WEBHOOK_SIGNATURE"] ?? "";

if (verified(getenv("WEBHOOK_SECRET"), $id, $timestamp, $signatures, $body) && abs(time() - (int) $timestamp) <= 300) {
    // Store the event under its id, and do the work after the answer.
    error_log("accepted $id " . json_decode($body)->type);
    http_response_code(204);
} else {
    error_log("refused $id");
    http_response_code(401);
}
