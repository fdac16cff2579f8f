"""Has libraries that are not ours verify webhooks: PyPI's standardwebhooks and svix by the shared secret, cryptography by the public key.

Input and output as in verify_webhooks.mjs.
"""
import base64
import datetime
import json
import sys

import standardwebhooks.webhooks
import svix.webhooks
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

with open(json.loads(sys.argv[1])["file"], encoding="utf-8") as file:
    vectors = json.load(file)["vectors"]


class Clock(datetime.datetime):
    """The libraries' clock, set to each vector's time."""

    seconds = 0

    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.fromtimestamp(cls.seconds, tz)


standardwebhooks.webhooks.datetime = Clock


def by_library(library, prefix):
    def accepts(vector, key):
        names = vector["headerNames"]
        headers = {f"{prefix}-{part}": vector["headers"][names[part]] for part in ("id", "timestamp", "signature")}
        try:
            library.Webhook(key).verify(vector["bodyText"], headers, **options)
        except library.WebhookVerificationError:
            return False
        except ValueError as error:
            # What is no base64 at all is refused by another name.
            assert "signature" in vector["name"], error
            return False
        return True

    options = {"json_parse": False} if library is standardwebhooks.webhooks else {}
    return accepts


def by_key_pair(vector, key):
    headers, names = vector["headers"], vector["headerNames"]
    if abs(vector["now"] - int(headers[names["timestamp"]])) > 300:
        return False
    start = f"{headers[names['id']]}.{headers[names['timestamp']]}."
    message = start.encode() + base64.b64decode(vector["bodyBase64"])
    public_key = Ed25519PublicKey.from_public_bytes(base64.b64decode(key.removeprefix("whpk_")))
    for part in headers[names["signature"]].split():
        scheme, _, signature = part.partition(",")
        if scheme != "v1a":
            continue
        try:
            public_key.verify(base64.b64decode(signature), message)
            return True
        except InvalidSignature:
            continue
    return False


judges = {
    "standardwebhooks": ("whsec_", False, by_library(standardwebhooks.webhooks, "webhook")),
    "svix": ("whsec_", False, by_library(svix.webhooks, "webhook")),
    "svix by its own names": ("whsec_", False, by_library(svix.webhooks, "svix")),
    "cryptography": ("whpk_", True, by_key_pair),
}
judged = {}
for vector in vectors:
    Clock.seconds = vector["now"]
    for name, (prefix, takes_bytes, accepts) in judges.items():
        # The libraries take text alone.
        if not takes_bytes and vector["bodyText"] is None:
            continue
        for key in vector["receiverKeys"]:
            if key.startswith(prefix):
                assert accepts(vector, key) == vector["accepted"], (name, vector["name"])
                judged[name] = judged.get(name, 0) + 1
print(json.dumps(judged))
