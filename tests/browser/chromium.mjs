// Chromium for the journeys: started as the tests need it, and watched while it works.
//
// A journey is a script of this folder. It finds its input as JSON in its first argument, prints what the test goes on with as JSON, and fails by throwing.
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { basename, join } from 'node:path';
import { chromium } from 'playwright-core';

export const input = JSON.parse(process.argv[2]);

const home = process.env.STOA_TEST_CLIENTS;
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const screenshots = process.env.STOA_SCREENSHOTS || join(home, 'screenshots');

// Containers have little shared memory, and root has no sandbox; nothing of a browser for people is wanted.
const flags = ['--disable-dev-shm-usage', '--disable-gpu', '--disable-background-networking', '--disable-component-update', '--no-first-run',
    '--disable-features=Translate,OptimizationHints,MediaRouter', '--password-store=basic'];

/** Runs `work` with a page of a new browser. Fails if the browser complains about any page: a violated policy, a script's error. */
export async function journey(work) {
    const browser = await chromium.launch({
        executablePath: join(home, 'bin/chromium'),
        args: process.getuid() === 0 ? [...flags, '--no-sandbox'] : flags,
        chromiumSandbox: process.getuid() !== 0,
    });
    try {
        const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, locale: 'en-GB', timezoneId: 'UTC' });
        context.setDefaultTimeout(30_000);
        const page = await context.newPage();
        const complaints = watch(page);
        try {
            await work(page, context);
        } catch (error) {
            mkdirSync(screenshots, { recursive: true });
            const picture = join(screenshots, `failed-${basename(process.argv[1], '.mjs')}.png`);
            await page.screenshot({ path: picture, fullPage: true }).catch(() => undefined);
            const words = await page.locator('body').innerText({ timeout: 1000 }).catch(() => '');
            console.error([`at ${page.url()} (${picture}):`, words, ...complaints].join('\n'));
            throw error;
        }
        assert.deepEqual(complaints, []);
    } finally {
        await browser.close();
    }
}

/** What the browser complains about, from now on. That a page was refused is not one: journeys go to such pages on purpose. */
function watch(page) {
    const complaints = [];
    page.on('console', (message) => {
        const isOfStatus = message.text().startsWith('Failed to load resource: the server responded with a status of 4');
        if (['error', 'warning'].includes(message.type()) && !(isOfStatus && message.location().url === page.url())) {
            complaints.push(`${page.url()}: ${message.text()} (${message.location().url})`);
        }
    });
    page.on('pageerror', (error) => complaints.push(`${page.url()}: ${error}`));
    return complaints;
}

/** An app on loopback, where the server allows any port: how it asks for what `request` says, and the address that it is answered at. */
export async function startApp() {
    const server = createServer((request, response) => {
        response.setHeader('content-type', 'text/html; charset=utf-8');
        response.end('<!doctype html><html lang="en"><link rel="icon" href="data:,"><title>An app</title><h1>Back at the app</h1>');
    });
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    server.unref();
    const redirectUri = `http://127.0.0.1:${server.address().port}/callback`;
    const asks = (request) => {
        const url = new URL(request);
        url.searchParams.set('redirect_uri', redirectUri);
        return url.href;
    };
    const answered = async (page) => {
        await page.waitForURL((url) => url.href.startsWith(redirectUri));
        return new URL(page.url());
    };
    return { asks, answered };
}

/** Fills in who one is, and goes on. */
export async function signIn(page, { login, password }) {
    await page.getByRole('textbox', { name: 'Login' }).fill(login);
    await page.getByLabel('Password', { exact: true }).fill(password);
    await page.getByRole('button', { name: 'Sign in', exact: true }).click();
    await page.waitForURL((url) => url.pathname !== '/console/sign-in');
}

/** Presses Tab until what `locator` finds has the focus, as who has no mouse does. Every stop on the way must be visible as such. */
export async function tabTo(page, locator) {
    const stops = [];
    for (let presses = 0; presses < 80; presses += 1) {
        if (await locator.evaluate((element) => element === document.activeElement).catch(() => false)) {
            await assertFocusIsVisible(page);
            return;
        }
        await page.keyboard.press('Tab');
        stops.push(await assertFocusIsVisible(page));
    }
    assert.fail(`${locator} is not reached by Tab; there were ${stops.join(', ')}`);
}

/** What has the focus, by its words. Fails unless it looks different for that. */
async function assertFocusIsVisible(page) {
    const focused = await page.evaluate(() => {
        const element = document.activeElement;
        if (!element || element === document.body) return { words: 'the page', isVisible: true };
        const isMarked = (style) => (style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0) || style.boxShadow !== 'none';
        // A box that is drawn by its label is marked there.
        const candidates = [element, element.closest('label'), ...(element.labels ?? []), element.nextElementSibling].filter(Boolean);
        const box = element.getBoundingClientRect();
        const words = `${element.tagName.toLowerCase()} ${element.name || element.textContent.trim() || element.id}`;
        return { words, isVisible: candidates.some((candidate) => isMarked(getComputedStyle(candidate))) && box.width > 0 && box.height > 0 };
    });
    assert.ok(focused.isVisible, `the focus on ${focused.words} can't be seen at ${page.url()}`);
    return focused.words;
}

/** Both widths in both themes. axe looks at each width once and at each theme once. */
const views = [
    { width: 1280, theme: 'light', isExamined: true },
    { width: 1280, theme: 'dark', isExamined: false },
    { width: 390, theme: 'light', isExamined: false },
    { width: 390, theme: 'dark', isExamined: true },
];

/** What was seen and must not be. The script fails for it at its end, so that all of it is known at once. */
const findings = [];
process.on('exit', () => {
    if (findings.length === 0) return;
    console.error(findings.join('\n'));
    process.exitCode = 1;
});

/** Looks at a page in both themes and at both widths: axe finds nothing, nothing scrolls sideways, and there is a picture of each. */
export async function look(page, name) {
    mkdirSync(screenshots, { recursive: true });
    const before = page.viewportSize();
    for (const { width, theme, isExamined } of views) {
        await page.setViewportSize({ width, height: width === 390 ? 844 : 900 });
        await page.emulateMedia({ colorScheme: theme, reducedMotion: 'reduce' });
        await capture(page, join(screenshots, `${name}-${width}-${theme}.png`));
        // What is folded is looked at too.
        await page.evaluate(() => {
            for (const details of document.querySelectorAll('details:not([open])')) {
                details.open = true;
                details.dataset.opened = '';
            }
        });
        const where = `${name} (${new URL(page.url()).pathname}) at ${width} in ${theme}`;
        const { scrolled, inner } = await page.evaluate(() => ({ scrolled: document.documentElement.scrollWidth, inner: window.innerWidth }));
        if (scrolled > inner) findings.push(`${where} is ${scrolled} wide`);
        if (isExamined) findings.push(...(await examine(page)).map((found) => `${where}: ${found}`));
        await page.evaluate(() => {
            for (const details of document.querySelectorAll('details[data-opened]')) {
                details.open = false;
                delete details.dataset.opened;
            }
        });
    }
    await page.setViewportSize(before);
    await page.emulateMedia({ colorScheme: null, reducedMotion: null });
}

/**
 * Takes a picture of the whole page. Chromium now and then refuses one, most often just after its start or a change of size, and takes the very same when it is
 * asked again.
 */
async function capture(page, path) {
    for (let refusals = 0; ; refusals += 1) {
        try {
            await page.screenshot({ path, fullPage: true });
            return;
        } catch (error) {
            if (refusals === 3 || !error.message.includes('Unable to capture screenshot')) throw error;
            // A frame later there is something to take.
            await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))));
        }
    }
}

/** What axe finds. */
async function examine(page) {
    if (!await page.evaluate(() => 'axe' in window)) await page.evaluate(axe);
    const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
    return violations.flatMap(({ id, help, nodes }) => nodes.map((node) => `${id}: ${help}: ${node.html}: ${node.failureSummary}`));
}
