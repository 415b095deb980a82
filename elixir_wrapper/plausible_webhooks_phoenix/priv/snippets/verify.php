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
echo $verified ? "verified" : "NOT verified", " $age s old\n";
