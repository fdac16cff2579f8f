// Somebody adds a passkey, signs in with it, and confirms a step with it.
//
// Input: {issuer, person: {login, password}}
import assert from 'node:assert/strict';
import { input, journey, look, signIn } from './chromium.mjs';

const { issuer, person } = input;

await journey(async (page, context) => {
    const devtools = await context.newCDPSession(page);
    await devtools.send('WebAuthn.enable');
    const { authenticatorId } = await devtools.send('WebAuthn.addVirtualAuthenticator', {
        options: {
            protocol: 'ctap2', transport: 'internal', hasResidentKey: true, hasUserVerification: true, isUserVerified: true,
            automaticPresenceSimulation: true,
        },
    });
    const { credentials: none } = await devtools.send('WebAuthn.getCredentials', { authenticatorId });
    assert.equal(none.length, 0);

    await page.goto(`${issuer}/console/sign-in`);
    await signIn(page, person);
    await page.goto(`${issuer}/console/account/security`);
    await page.getByRole('link', { name: 'Add a passkey' }).click();
    await look(page, 'new-passkey');
    await page.getByRole('textbox', { name: 'What to call it' }).fill('The laptop');
    await page.getByRole('button', { name: 'Continue' }).click();
    await page.getByText('The laptop').first().waitFor();
    const { credentials } = await devtools.send('WebAuthn.getCredentials', { authenticatorId });
    assert.deepEqual(credentials.map((credential) => credential.rpId), ['localhost']);
    await look(page, 'security-with-passkey');

    // Without a word typed. The page offers passkeys by itself too, and this authenticator may take the offer at once. However they come together, there is one
    // answer: a second would be of a page that the first has made out of date.
    let answers = 0;
    page.on('request', (request) => {
        answers += Number(request.method() === 'POST' && new URL(request.url()).pathname === '/console/sign-in/passkey');
    });
    await page.getByRole('button', { name: 'Sign out' }).click();
    const button = page.getByRole('button', { name: 'Sign in with a passkey' });
    const inside = page.getByRole('button', { name: 'Sign out' });
    await button.or(inside).waitFor();
    await button.evaluate((element) => [1, 2].forEach(() => element.click()), undefined, { timeout: 5_000 }).catch(() => undefined);
    await inside.waitFor();
    assert.equal(answers, 1);

    await page.goto(`${issuer}/console/step-up`);
    await page.getByRole('button', { name: 'Confirm with a passkey' }).click();
    await page.waitForURL((url) => url.pathname !== '/console/step-up');

    // Somebody else's authenticator gets nobody in.
    await page.goto(`${issuer}/console/account`);
    await devtools.send('WebAuthn.clearCredentials', { authenticatorId });
    await page.getByRole('button', { name: 'Sign out' }).click();
    await button.click();
    await page.getByText('The passkey was not used').waitFor();
});
