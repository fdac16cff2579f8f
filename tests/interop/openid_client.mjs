// npm's openid-client as an app of a merchant: it discovers the server, gets a code and tokens, refreshes, introspects, revokes.
//
// Input: {issuer, resource, api, scope, consenter, client: {id, method, secret?, key?, redirectUri}}. `consenter` is somebody at a browser, who is asked by
// HTTP and says where the browser was sent to.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import * as oauth from 'oauth4webapi';
import * as openid from 'openid-client';

const input = JSON.parse(process.argv[2]);
const { issuer, resource, api, scope, consenter, client } = input;

async function authentication() {
    switch (client.method) {
        case 'client_secret_basic': return openid.ClientSecretBasic(client.secret);
        case 'client_secret_post': return openid.ClientSecretPost(client.secret);
        case 'private_key_jwt': {
            const algorithm = { name: 'ECDSA', namedCurve: 'P-256' };
            const key = await crypto.subtle.importKey('jwk', client.key, algorithm, false, ['sign']);
            return openid.PrivateKeyJwt({ key, kid: client.key.kid });
        }
        case 'none': return openid.None();
    }
    throw new Error(`no such method: ${client.method}`);
}

// A native app listens on a free port of loopback (RFC 8252); a web app's address is never called here.
async function listen() {
    if (client.method !== 'none') return { redirectUri: client.redirectUri, receive: async (answer) => new URL(answer) };
    let arrived;
    const arrival = new Promise((resolve) => { arrived = resolve; });
    const server = createServer((request, response) => { response.end('done'); arrived(request.url); });
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    const redirectUri = client.redirectUri.replace('127.0.0.1', `127.0.0.1:${server.address().port}`);
    const receive = async (answer) => {
        await (await fetch(answer)).text();
        const url = new URL(await arrival, redirectUri);
        server.close();
        return url;
    };
    return { redirectUri, receive };
}

async function call(token) {
    return openid.fetchProtectedResource(config, token, new URL(api), 'GET')
        .then((response) => response.status, (error) => error.response?.status ?? Promise.reject(error));
}

async function refused(promise, code) {
    await assert.rejects(promise, (error) => error.error === code || assert.fail(error));
}

// A revoked token is refused within a second; a slow machine gets more time before it fails.
async function becomes(status, ask) {
    const deadline = Date.now() + 30_000;
    let last;
    do {
        last = await ask();
        if (last === status) return;
    } while (Date.now() < deadline);
    assert.equal(last, status);
}

// Discovery: the server's metadata (RFC 8414), and the API's (RFC 9728), which leads there.
const config = await openid.discovery(new URL(issuer), client.id, { token_endpoint_auth_method: client.method }, await authentication(),
    { algorithm: 'oauth2', execute: [openid.allowInsecureRequests] });
const server = config.serverMetadata();
assert.equal(server.issuer, issuer);
assert.equal(server.authorization_response_iss_parameter_supported, true);
assert.deepEqual(server.code_challenge_methods_supported, ['S256']);
assert.ok(server.token_endpoint_auth_methods_supported.includes(client.method));

const insecure = { [oauth.allowInsecureRequests]: true };
const described = await oauth.processResourceDiscoveryResponse(new URL(resource), await oauth.resourceDiscoveryRequest(new URL(resource), insecure));
assert.deepEqual(described.authorization_servers, [issuer]);

// Code and PKCE. The library checks state and iss (RFC 9207), and here it is asked whether it would.
const verifier = openid.randomPKCECodeVerifier();
const state = openid.randomState();
const { redirectUri, receive } = await listen();
const request = openid.buildAuthorizationUrl(config, {
    redirect_uri: redirectUri, scope, resource, state,
    code_challenge: await openid.calculatePKCECodeChallenge(verifier), code_challenge_method: 'S256',
});
const consented = await fetch(`${consenter}?${new URLSearchParams({ request: request.href })}`);
const said = await consented.text();
assert.equal(consented.status, 200, said);
const answer = await receive(said);
assert.ok(answer.href.startsWith(redirectUri), answer.href);
assert.equal(answer.searchParams.get('iss'), issuer);
for (const change of [(query) => query.set('iss', 'https://another.example'), (query) => query.delete('iss'), (query) => query.set('state', 'x')]) {
    const changed = new URL(answer);
    change(changed.searchParams);
    await assert.rejects(openid.authorizationCodeGrant(config, changed, { pkceCodeVerifier: verifier, expectedState: state }));
}
const checks = { pkceCodeVerifier: verifier, expectedState: state };
const first = await openid.authorizationCodeGrant(config, answer, checks);
assert.equal(first.token_type, 'bearer');
assert.ok(first.expires_in > 0 && first.expires_in <= 600);
assert.ok(first.refresh_token);
assert.equal(await call(first.access_token), 200);

// Refreshing rotates.
const second = await openid.refreshTokenGrant(config, first.refresh_token);
assert.notEqual(second.refresh_token, first.refresh_token);
assert.equal(await call(second.access_token), 200);
const narrow = await openid.refreshTokenGrant(config, second.refresh_token, { scope: scope.split(' ')[0] });
assert.equal(narrow.scope, scope.split(' ')[0]);

// Introspection is for who can prove who they are.
if (client.method === 'none') {
    await assert.rejects(openid.tokenIntrospection(config, narrow.access_token));
} else {
    for (const token of [narrow.access_token, narrow.refresh_token]) {
        const told = await openid.tokenIntrospection(config, token);
        assert.equal(told.active, true);
        assert.equal(told.client_id, client.id);
        assert.equal(told.iss, issuer);
    }
    assert.equal((await openid.tokenIntrospection(config, 'nonsense')).active, false);
}

// Revoking the refresh token ends all that came from the code.
await openid.tokenRevocation(config, narrow.refresh_token);
await becomes(401, () => call(narrow.access_token));
await refused(openid.refreshTokenGrant(config, narrow.refresh_token), 'invalid_grant');
if (client.method !== 'none') {
    assert.equal((await openid.tokenIntrospection(config, narrow.access_token)).active, false);
    assert.equal((await openid.tokenIntrospection(config, narrow.refresh_token)).active, false);
}
