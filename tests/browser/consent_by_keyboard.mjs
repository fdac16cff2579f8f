// The whole journey of consent by keyboard alone: sign in, read, untick, choose an end, allow, and be back at the app; then refuse.
//
// Input: {request, again, person: {login, password}, scope}: two authorization requests, and the words of the scope to untick.
// Prints the addresses that the app was answered at.
import assert from 'node:assert/strict';
import { input, journey, look, startApp, tabTo } from './chromium.mjs';

await journey(async (page) => {
    const app = await startApp();

    await page.goto(app.asks(input.request));
    await tabTo(page, page.getByRole('textbox', { name: 'Login' }));
    await page.keyboard.type(input.person.login);
    await tabTo(page, page.getByLabel('Password', { exact: true }));
    await page.keyboard.type(input.person.password);
    await page.keyboard.press('Enter');
    await page.waitForURL('**/console/consent/**');
    await look(page, 'consent');

    const box = page.getByRole('checkbox', { name: input.scope });
    assert.equal(await box.isChecked(), true);
    await tabTo(page, box);
    await page.keyboard.press('Space');
    assert.equal(await box.isChecked(), false);

    const week = page.getByRole('radio', { name: 'week' });
    const chosen = page.getByRole('radio', { checked: true }).first();
    await tabTo(page, chosen);
    for (let presses = 0; presses < 6 && !await week.isChecked(); presses += 1) await page.keyboard.press('ArrowDown');
    assert.equal(await week.isChecked(), true);

    await tabTo(page, page.getByRole('button', { name: 'Allow access' }));
    await page.keyboard.press('Enter');
    const answer = await app.answered(page);
    assert.ok(answer.searchParams.get('code'), answer.href);

    await page.goto(app.asks(input.again));
    await tabTo(page, page.getByRole('button', { name: 'Cancel' }));
    await page.keyboard.press('Space');
    const refusal = await app.answered(page);
    assert.equal(refusal.searchParams.get('error'), 'access_denied');
    console.log(JSON.stringify({ answer: answer.href, refusal: refusal.href }));
});
