// Somebody adds a passkey, signs in with it, and confirms a step with it.
//
// Input: {issuer, person: {login, password}}
import assert from 'node:assert/strict';
import { input, journey, look, signIn } from './chromium.mjs';

await journey(async (page, context) => {
    const devtools = await context.newCDPSession(page);
    await devtools.send('WebAuthn.enable');
    const { authenticatorId } = await devtools.send('WebAuthn.addVirtualAuthenticator', {
        options: {
            protocol: 'ctap2', transport: 'internal', hasResidentKey: true, hasUserVerification: true, isUserVerified: true,
            // Nobody touches it while the sign-in page merely offers passkeys.
            automaticPresenceSimulation: false,
        },
    });
    const touched = async (work) => {
        await devtools.send('WebAuthn.setAutomaticPresenceSimulation', { authenticatorId, enabled: true });
        await work();
        await devtools.send('WebAuthn.setAutomaticPresenceSimulation', { authenticatorId, enabled: false });
    };

    await page.goto(`${input.issuer}/console/sign-in`);
    await signIn(page, input.person);
});
