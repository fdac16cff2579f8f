"""Python's Authlib as an app of a merchant: it discovers the server, gets a code and tokens, refreshes, introspects, revokes.

Input as in openid_client.mjs.
"""
import json
import sys
import time
from urllib.parse import parse_qs, urlsplit

import requests
from authlib.common.security import generate_token
from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata, get_well_known_url
from joserfc.jwk import ECKey

given = json.loads(sys.argv[1])
issuer, resource, scope, client = given["issuer"], given["resource"], given["scope"], given["client"]

# Discovery (RFC 8414), by the library's own checks of what has to be in it.
server = AuthorizationServerMetadata(requests.get(get_well_known_url(issuer, external=True), timeout=60).json())
server.validate()
assert server["issuer"] == issuer
assert client["method"] in server["token_endpoint_auth_methods_supported"], server

# Where the library asks for a secret it takes a key too.
secret = ECKey.import_key(client["key"]) if "key" in client else client["secret"]
session = OAuth2Session(
    client["id"],
    secret,
    scope=scope,
    redirect_uri=client["redirectUri"],
    token_endpoint=server["token_endpoint"],
    token_endpoint_auth_method=client["method"],
    revocation_endpoint_auth_method=client["method"],
    code_challenge_method="S256",
)
if client["method"] == "private_key_jwt":
    session.register_client_auth_method(PrivateKeyJWT(server["token_endpoint"], headers={"kid": client["key"]["kid"]}, alg="ES256"))


def call(token):
    answer = requests.get(given["api"], headers={"authorization": "Bearer " + token["access_token"]}, timeout=60)
    return answer.status_code


def introspect(token):
    answer = session.introspect_token(server["introspection_endpoint"], token=token)
    assert answer.status_code == 200, answer.text
    return answer.json()


def assert_refused(code, ask):
    try:
        ask()
    except OAuthError as error:
        assert error.error == code, error
    else:
        raise AssertionError("it was not refused")


# Code and PKCE; somebody at a browser consents.
verifier = generate_token(64)
request, state = session.create_authorization_url(server["authorization_endpoint"], code_verifier=verifier, resource=resource)
consented = requests.get(given["consenter"], params={"request": request}, timeout=60)
assert consented.status_code == 200, consented.text
answer = consented.text
query = parse_qs(urlsplit(answer).query)
assert answer.startswith(client["redirectUri"]), answer
assert query["iss"] == [issuer], answer
assert query["state"] == [state], answer
first = session.fetch_token(server["token_endpoint"], authorization_response=answer, state=state, code_verifier=verifier)
assert first["token_type"].lower() == "bearer", first
assert 0 < first["expires_in"] <= 600, first
assert call(first) == 200

# Refreshing rotates. What is introspected is the client's own.
second = session.refresh_token(server["token_endpoint"], refresh_token=first["refresh_token"])
assert second["refresh_token"] != first["refresh_token"]
assert call(second) == 200
for name in ["access_token", "refresh_token"]:
    told = introspect(second[name])
    assert told["active"] is True, told
    assert told["client_id"] == client["id"], told
assert introspect("nonsense") == {"active": False}

# Revoking the refresh token ends all that came from the code; a slow machine gets more than the second that is promised.
revoked = session.revoke_token(server["revocation_endpoint"], token=second["refresh_token"], token_type_hint="refresh_token")
assert revoked.status_code == 200, revoked.text
deadline = time.monotonic() + 30
while call(second) != 401:
    assert time.monotonic() < deadline, "the token is still taken"
assert introspect(second["access_token"]) == {"active": False}
assert_refused("invalid_grant", lambda: session.refresh_token(server["token_endpoint"], refresh_token=second["refresh_token"]))
