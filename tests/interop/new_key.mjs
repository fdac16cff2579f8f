// Prints a new key pair of a client, as JWKs: {"private": …, "public": …}.
import { randomUUID } from 'node:crypto';

const pair = await crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, ['sign', 'verify']);
const named = { kid: randomUUID(), alg: 'ES256', use: 'sig' };
const { kty, crv, x, y, d } = await crypto.subtle.exportKey('jwk', pair.privateKey);
console.log(JSON.stringify({ private: { kty, crv, x, y, d, ...named }, public: { kty, crv, x, y, ...named } }));
