// A look at every page, in every state that is easy to be in. What is linked is found by following the links.
//
// Input: {issuer, outside: {name: path}, persons: {name: {login, password}}, states: [{person, name, path}]}: pages for who has not signed in, people, and pages
// that no link leads to for each of them.
import assert from 'node:assert/strict';
import { input, journey, look, signIn } from './chromium.mjs';

const { issuer } = input;
const at = (path) => new URL(path, issuer).href;

/** The path of a page without what differs from one merchant, app or request to another. */
const kind = (url) => new URL(url).pathname.replace(/[a-z]{2,4}_[0-9a-z]{20,}/g, 'ID').replace(/\/$/, '');

await journey(async (page) => {
    for (const [name, path] of Object.entries(input.outside)) {
        await page.goto(at(path));
        await look(page, name);
    }
    await page.goto(at('/console/sign-in'));
    await page.getByRole('textbox', { name: 'Login' }).fill('nobody');
    await page.getByLabel('Password', { exact: true }).fill('no password of anybody');
    await page.getByRole('button', { name: 'Sign in', exact: true }).click();
    await page.getByRole('alert').first().waitFor();
    await look(page, 'sign-in-refused');
});

const seen = new Set();
for (const [who, person] of Object.entries(input.persons)) {
    await journey(async (page) => {
        await page.goto(at('/console/sign-in'));
        await signIn(page, person);
        for (const state of input.states.filter((state) => state.person === who)) {
            await page.goto(at(state.path));
            await look(page, state.name);
        }
        const waiting = [at('/console/')];
        while (waiting.length > 0) {
            const url = waiting.shift();
            if (seen.has(kind(url))) continue;
            const response = await page.goto(url);
            seen.add(kind(url));
            assert.ok(response.ok(), `${response.status()} at ${url}, which a page links to`);
            const links = await page.locator('a[href]').evaluateAll((links) => links.map((link) => link.href));
            waiting.push(...links.filter((link) => link.startsWith(`${issuer}/console`)).map((link) => link.split('#')[0]));
            if (seen.has(kind(page.url())) && kind(page.url()) !== kind(url)) continue;
            seen.add(kind(page.url()));
            await look(page, kind(page.url()).replace(/^\/console\/?/, '').replaceAll('/', '-') || 'console');
        }
    });
}
console.log(JSON.stringify([...seen].sort()));
