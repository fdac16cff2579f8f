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

const { issuer, person } = input;

await journey(async (page) => {
    const signOut = async () => {
        await page.getByRole('button', { name: 'Sign out' }).click();
        await page.waitForURL('**/console/sign-in');
    };
    await page.goto(`${issuer}/console/sign-in`);
    await signIn(page, person);

    await page.goto(`${issuer}/console/account/security`);
    await page.getByRole('link', { name: 'Set up an authenticator' }).click();
    await look(page, 'authenticator');
    await page.getByText("I can't scan it").click();
    const secret = (await page.locator('code').innerText()).replaceAll(/\s/g, '');
    const field = page.getByRole('textbox', { name: 'Six-digit code' });
    await field.fill(code(secret));
    await page.getByRole('button', { name: 'Turn it on' }).click();
    await page.getByRole('heading', { name: 'Keep these recovery codes' }).waitFor();
    await look(page, 'recovery-codes');
    const recoveryCodes = await page.locator('ul.codes li').allInnerTexts();
    assert.ok(recoveryCodes.length >= 8, recoveryCodes.join());
    await page.getByRole('link', { name: 'I have kept them' }).click();

    // A password alone is no longer enough. The code that was typed is used up; an authenticator may be a step ahead.
    await signOut();
    await signIn(page, person);
    await field.waitFor();
    await look(page, 'second-factor');
    await field.fill(code(secret, 1));
    await page.keyboard.press('Enter');
    await page.getByRole('button', { name: 'Sign out' }).waitFor();

    await signOut();
    await signIn(page, person);
    await page.getByText("I can't use my authenticator").click();
    await page.getByRole('textbox', { name: 'Recovery code' }).fill(recoveryCodes[0]);
    await page.getByRole('button', { name: 'Use the recovery code' }).click();
    await page.getByRole('button', { name: 'Sign out' }).waitFor();
    await page.goto(`${issuer}/console/account/security`);
    await page.getByText(`You have ${recoveryCodes.length - 1} recovery codes left`).waitFor();
    await look(page, 'security-with-authenticator');
});
