$id = {{id}};
$timestamp = {{timestamp}};
$signatures = {{signature}};
$body = {{body}}; // raw, before it is parsed
$genuine = verified(getenv("WEBHOOK_SECRET"), $id, $timestamp, $signatures, $body);
$age = abs(time() - (int) $timestamp); // refuse more than 300
echo $genuine ? "verified" : "NOT verified", " $age s old\n";
