"""Verifies webhooks by Standard Webhooks, with Python's own library; for v1a also `cryptography`.

    from verify import verify
    verify(request.headers, request.get_data(), [os.environ["WEBHOOK_KEY"]])  # raises ValueError if it is not to be trusted

Give it the body's bytes as they came, and every key that is valid at the moment: `whsec_…` (v1) or `whpk_…` (v1a). Then look whether you have seen the
`webhook-id` before: deliveries may come more than once.
"""
import base64
import hashlib
import hmac
import time

TOLERANCE_SECONDS = 300
NAMES = {"id": "webhook-id", "timestamp": "webhook-timestamp", "signature": "webhook-signature"}


def verify(headers, body, keys, now=None, names=NAMES):
    message_id, timestamp = headers.get(names["id"], ""), headers.get(names["timestamp"], "")
    if not message_id or not (timestamp.isascii() and timestamp.isdigit()):
        raise ValueError("not a webhook")
    if abs((time.time() if now is None else now) - int(timestamp)) > TOLERANCE_SECONDS:
        raise ValueError("too old, or from the future")
    message = f"{message_id}.{timestamp}.".encode() + body
    for key in keys:
        kind, _, encoded = key.partition("_")
        key_bytes = base64.b64decode(encoded)
        for signature in headers.get(names["signature"], "").split():
            scheme, _, text = signature.partition(",")
            try:
                given = base64.b64decode(text, validate=True)
            except ValueError:
                continue
            if scheme == "v1" and kind == "whsec":
                expected = hmac.new(key_bytes, message, hashlib.sha256).digest()
                if hmac.compare_digest(given, expected):
                    return
            if scheme == "v1a" and kind == "whpk" and is_signed_by(key_bytes, given, message):
                return
    raise ValueError("no signature is right")


def is_signed_by(public_key, signature, message):
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
        return True
    except InvalidSignature:
        return False


# python verify.py ../webhook-signature-vectors.json
if __name__ == "__main__":
    import json
    import sys

    with open(sys.argv[1], encoding="utf-8") as file:
        vectors = json.load(file)["vectors"]
    for vector in vectors:
        accepted = True
        try:
            body = base64.b64decode(vector["bodyBase64"])
            verify(vector["headers"], body, vector["receiverKeys"], vector["now"], vector["headerNames"])
        except ValueError:
            accepted = False
        assert accepted == vector["accepted"], vector["name"]
    print(f"{len(vectors)} vectors")
