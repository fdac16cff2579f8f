<?php
// Verifies webhooks by Standard Webhooks, with nothing but PHP (8 or newer; for v1a its sodium extension).
//
//     require 'verify.php';
//     verify(getallheaders(), file_get_contents('php://input'), [getenv('WEBHOOK_KEY')]);   // throws if it is not to be trusted
//
// Give it the body's bytes as they came, and every key that is valid at the moment: `whsec_…` (v1) or `whpk_…` (v1a). Then look whether you have seen the
// `webhook-id` before: deliveries may come more than once.

const TOLERANCE_SECONDS = 300;
const NAMES = ['id' => 'webhook-id', 'timestamp' => 'webhook-timestamp', 'signature' => 'webhook-signature'];

function verify(array $headers, string $body, array $keys, ?int $now = null, array $names = NAMES): void
{
    $headers = array_change_key_case($headers);
    $id = $headers[strtolower($names['id'])] ?? '';
    $timestamp = $headers[strtolower($names['timestamp'])] ?? '';
    if ($id === '' || !ctype_digit($timestamp)) {
        throw new UnexpectedValueException('not a webhook');
    }
    if (abs(($now ?? time()) - (int) $timestamp) > TOLERANCE_SECONDS) {
        throw new UnexpectedValueException('too old, or from the future');
    }
    $message = "$id.$timestamp.$body";
    foreach ($keys as $key) {
        [$kind, $encoded] = explode('_', $key, 2);
        $key_bytes = base64_decode($encoded, true);
        foreach (explode(' ', $headers[strtolower($names['signature'])] ?? '') as $signature) {
            [$scheme, $text] = explode(',', $signature, 2) + ['', ''];
            $given = base64_decode($text, true);
            if ($given === false) {
                continue;
            }
            if ($scheme === 'v1' && $kind === 'whsec') {
                // In constant time.
                if (hash_equals(hash_hmac('sha256', $message, $key_bytes, true), $given)) {
                    return;
                }
            }
            if ($scheme === 'v1a' && $kind === 'whpk' && strlen($given) === SODIUM_CRYPTO_SIGN_BYTES) {
                if (sodium_crypto_sign_verify_detached($given, $message, $key_bytes)) {
                    return;
                }
            }
        }
    }
    throw new UnexpectedValueException('no signature is right');
}

// php verify.php ../webhook-signature-vectors.json
if (PHP_SAPI === 'cli' && realpath($argv[0]) === __FILE__) {
    $vectors = json_decode(file_get_contents($argv[1]), true, 512, JSON_THROW_ON_ERROR)['vectors'];
    foreach ($vectors as $vector) {
        $accepted = true;
        try {
            verify($vector['headers'], base64_decode($vector['bodyBase64']), $vector['receiverKeys'], $vector['now'], $vector['headerNames']);
        } catch (UnexpectedValueException) {
            $accepted = false;
        }
        if ($accepted !== $vector['accepted']) {
            throw new LogicException($vector['name']);
        }
    }
    echo count($vectors), " vectors\n";
}
