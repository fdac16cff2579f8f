// Somebody sets up an authenticator app, keeps the recovery codes, and signs in with each.
//
// Input: {issuer, person: {login, password}}
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { input, journey, look, signIn } from './chromium.mjs';

/** The code that an authenticator shows (RFC 6238), so many steps of 30 s from now. */
function code(secret, steps = 0) {
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';
    const bits = [...secret].map((letter) => alphabet.indexOf(letter).toString(2).padStart(5, '0')).join('');
    const key = Buffer.from(bits.match(/.{8}/g).map((byte) => parseInt(byte, 2)));
    const counter = Buffer.alloc(8);
    counter.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30_000) + steps));
    const digest = createHmac('sha1', key).update(counter).digest();
    const offset = digest[19] & 15;
    return String((digest.readUInt32BE(offset) & 0x7fffffff) % 1_000_000).padStart(6, '0');
}

await journey(async (page) => {
    console.log(code('GEZDGNBVGY3TQOJQ'));
});
