// Verifies webhooks by Standard Webhooks, with nothing but Node.
//
//   import { verify } from './verify.mjs';
//   verify(request.headers, rawBody, [process.env.WEBHOOK_KEY]);   // throws if it is not to be trusted
//
// Give it the body's bytes as they came (in Express: express.raw({ type: '*/*', inflate: false })), and every key that is valid at the moment: `whsec_…` (v1)
// or `whpk_…` (v1a). Then look whether you have seen the `webhook-id` before: deliveries may come more than once.
import { createHmac, createPublicKey, timingSafeEqual, verify as verifySignature } from 'node:crypto';

const TOLERANCE_SECONDS = 300;
// What stands before the 32 bytes of an Ed25519 key in DER (RFC 8410).
const ED25519_DER = Buffer.from('302a300506032b6570032100', 'hex');

export function verify(headers, body, keys, now = Date.now() / 1000, names = {
    id: 'webhook-id', timestamp: 'webhook-timestamp', signature: 'webhook-signature',
}) {
    const id = headers[names.id];
    const timestamp = headers[names.timestamp];
    const signatures = (headers[names.signature] ?? '').split(' ');
    if (!id || !/^\d+$/.test(timestamp)) throw new Error('not a webhook');
    if (Math.abs(now - Number(timestamp)) > TOLERANCE_SECONDS) throw new Error('too old, or from the future');
    const message = Buffer.concat([Buffer.from(`${id}.${timestamp}.`), body]);
    for (const key of keys) {
        const bytes = Buffer.from(key.slice(key.indexOf('_') + 1), 'base64');
        for (const signature of signatures) {
            const [scheme, text] = signature.split(',');
            const given = Buffer.from(text ?? '', 'base64');
            if (scheme === 'v1' && key.startsWith('whsec_')) {
                const expected = createHmac('sha256', bytes).update(message).digest();
                if (given.length === expected.length && timingSafeEqual(given, expected)) return;
            }
            if (scheme === 'v1a' && key.startsWith('whpk_')) {
                const publicKey = createPublicKey({ key: Buffer.concat([ED25519_DER, bytes]), format: 'der', type: 'spki' });
                if (verifySignature(null, message, publicKey, given)) return;
            }
        }
    }
    throw new Error('no signature is right');
}

// node verify.mjs ../webhook-signature-vectors.json
if (process.argv[2] && import.meta.url === (await import('node:url')).pathToFileURL(process.argv[1]).href) {
    const { vectors } = JSON.parse((await import('node:fs')).readFileSync(process.argv[2]));
    for (const vector of vectors) {
        let accepted = true;
        try {
            verify(vector.headers, Buffer.from(vector.bodyBase64, 'base64'), vector.receiverKeys, vector.now, vector.headerNames);
        } catch {
            accepted = false;
        }
        if (accepted !== vector.accepted) throw new Error(vector.name);
    }
    console.log(`${vectors.length} vectors`);
}
