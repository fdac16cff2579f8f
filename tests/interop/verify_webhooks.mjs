// Has libraries that are not ours verify webhooks: npm's standardwebhooks and svix by the shared secret, @noble/ed25519 and node's own crypto by the public
// key. Each must accept what is right, and refuse what is not.
//
// Input: {"file": the path of {"vectors": […]} as in docs/webhook-signature-vectors.json}. Prints how many messages each library has judged.
import assert from 'node:assert/strict';
import { createPublicKey, verify } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { verifyAsync } from '@noble/ed25519';
import { Webhook as StandardWebhook } from 'standardwebhooks';
import { Webhook as SvixWebhook } from 'svix';

const { file } = JSON.parse(process.argv[2]);
const { vectors } = JSON.parse(await readFile(file, 'utf8'));

// The libraries know these names alone; a receiver that asked for others maps them.
const named = (vector, prefix) => Object.fromEntries(
    ['id', 'timestamp', 'signature'].map((part) => [`${prefix}-${part}`, vector.headers[vector.headerNames[part]]]),
);
const byLibrary = (Webhook, prefix) => (vector, key) => {
    try {
        new Webhook(key).verify(Buffer.from(vector.bodyBase64, 'base64'), named(vector, prefix));
        return true;
    } catch (error) {
        if (error instanceof SyntaxError || error instanceof TypeError) throw error;
        return false;
    }
};

// For v1a there is no library of the kind yet, but there are Ed25519's.
const PKIX_PREFIX = Buffer.from('302a300506032b6570032100', 'hex');
const byNode = (message, signature, key) => verify(
    null, message, createPublicKey({ key: Buffer.concat([PKIX_PREFIX, key]), format: 'der', type: 'spki' }), signature,
);
const byNoble = (message, signature, key) => verifyAsync(signature, message, key).catch(() => false);
const byKeyPair = (check) => async (vector, key) => {
    const { id, timestamp, signature } = vector.headerNames;
    const age = vector.now - Number(vector.headers[timestamp]);
    if (!(Math.abs(age) <= 300)) return false;
    const start = Buffer.from(`${vector.headers[id]}.${vector.headers[timestamp]}.`);
    const message = Buffer.concat([start, Buffer.from(vector.bodyBase64, 'base64')]);
    const publicKey = Buffer.from(key.slice('whpk_'.length), 'base64');
    const parts = vector.headers[signature].split(' ').filter((part) => part.startsWith('v1a,'));
    for (const part of parts) {
        const bytes = Buffer.from(part.slice('v1a,'.length), 'base64');
        if (bytes.length === 64 && await check(message, bytes, publicKey)) return true;
    }
    return false;
};

const judges = {
    standardwebhooks: { key: 'whsec_', takesBytes: false, accepts: byLibrary(StandardWebhook, 'webhook') },
    svix: { key: 'whsec_', takesBytes: false, accepts: byLibrary(SvixWebhook, 'webhook') },
    'svix by its own names': { key: 'whsec_', takesBytes: false, accepts: byLibrary(SvixWebhook, 'svix') },
    '@noble/ed25519': { key: 'whpk_', takesBytes: true, accepts: byKeyPair(byNoble) },
    'node:crypto': { key: 'whpk_', takesBytes: true, accepts: byKeyPair(byNode) },
};
const judged = {};
for (const vector of vectors) {
    Date.now = () => vector.now * 1000;
    for (const [name, judge] of Object.entries(judges)) {
        // The libraries take text alone.
        if (!judge.takesBytes && vector.bodyText === null) continue;
        for (const key of vector.receiverKeys.filter((key) => key.startsWith(judge.key))) {
            const isAccepted = await judge.accepts(vector, key);
            assert.equal(isAccepted, vector.accepted, `${name}: ${vector.name}`);
            judged[name] = (judged[name] ?? 0) + 1;
        }
    }
}
console.log(JSON.stringify(judged));
