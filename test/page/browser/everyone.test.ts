import { describe, expect } from 'vitest';

import { accessibilityFaults, type BrowserPage } from '../../rig/programs/browser.ts';
import type { PageLine } from '../../rig/fake/page-api.ts';
import { until } from '../../rig/wait.ts';
import { CHANGES, fleetOf, PERMISSION, paySession, QUESTION, session, SESSION_LINK } from './scenes.ts';
import { test } from './stage.ts';

const PHONE = { viewport: { width: 360, height: 740 }, hasTouch: true };
const LONG = 'Unbreakable'.repeat(40);

/** Replaces every remote string. */
const HOSTILE = [
  `<img src=x onerror="window.ran=1">`,
  `<script>window.ran=1</script>`,
  `"><svg onload=window.ran=1>`,
  `javascript:window.ran=1`,
  '`${window.ran=1}` **<b onclick=window.ran=1>x</b>**',
  '```html\n<img src=http://evil.example/x onerror=window.ran=1>\n```',
].join(' ');

describe('on a phone', () => {
  test.override({ pageOptions: PHONE });

  test('nothing is wider than the screen, and each control is at least 44 px high', async ({ page, api }) => {
    const long = { title: LONG, host: LONG, directory: `/${LONG}` };
    const waiting = [{ kind: 'permission', id: 'per_1', text: LONG }];
    api.setFleet(
      fleetOf(
        [session('ses_pay', { ...long, waiting }), session('ses_2', { ...long, state: 'failed', reason: LONG })],
        {
          notes: [LONG],
        },
      ),
    );
    api.setChanges('ses_pay', {
      files: [{ path: LONG, added: 1, removed: 0, patch: `@@ ${LONG}\n+${LONG}\n` }],
      more: 3,
    });
    const command = { ...PERMISSION, command: LONG, patterns: [LONG], always: [LONG] };
    const request = {
      ...QUESTION,
      questions: [{ question: LONG, options: [{ label: LONG, description: LONG }], multiple: false, custom: true }],
    };
    api.setSession('ses_pay', [
      { kind: 'session', title: LONG, directory: `/${LONG}`, state: 'retrying', reason: LONG, canDrive: true },
      ...paySession([command, request]).slice(1),
      { kind: 'text', message: 'msg_2', part: 'prt_3', text: ` ${LONG}\n\n\`\`\`\n${LONG}\n\`\`\`` },
      { kind: 'error', text: LONG },
    ]);
    await page.open('', '.row');
    await expectFitsPhone(page, 'the list');
    await page.open(SESSION_LINK, '.choices');
    await page.button('Changes (4)').waitFor();
    await expectFitsPhone(page, 'the session');
    // The command must be visible in full.
    const hidden = `((one) => one.scrollHeight - one.clientHeight + one.scrollWidth - one.clientWidth)(document.querySelector('.command'))`;
    expect(await page.evaluate<number>(hidden)).toBe(0);
    await page.button('Changes (4)').click();
    await page.locator('ins.line').waitFor();
    await expectFitsPhone(page, 'the changes');
    await page.getByRole('link', { name: 'Back to all sessions' }).click();
    await page.locator('.row').first().waitFor();
  });

  test('Escape in the message box returns to the list and keeps the text', async ({ page }) => {
    await page.open(SESSION_LINK, '.composer');
    await page.messageBox.fill('Half a thought');
    await page.keyboard.press('Escape');
    await page.locator('.row').first().waitFor();
    await page.open(SESSION_LINK, '.composer');
    expect(await page.messageBox.inputValue()).toBe('Half a thought');
  });
});

test('the keyboard alone leads past the list\u2019s head, into a session, to its request, and back', async ({
  page,
  api,
}) => {
  await page.open('', '.row');
  await page.keyboard.press('Tab');
  await page.focusIsOn('.skip');
  await page.keyboard.press('Enter');
  await page.focusIsOn('#fleet');
  await page.keyboard.press('Tab');
  await page.focusIsOn('.row a');
  await expectFocusOutline(page);
  await page.keyboard.press('Enter');
  await page.focusIsOn('.ask');
  await expectFocusOutline(page);
  await until('a card that can be pressed', () => page.locator('.ask button.primary').isEnabled());
  for (const stop of ['button.primary', 'input[name=word]', 'button[type=submit]', 'textarea']) {
    await page.keyboard.press('Tab');
    await page.focusIsOn(stop);
    await expectFocusOutline(page);
  }
  for (let back = 0; back < 3; back += 1) await page.keyboard.press('Shift+Tab');
  await page.focusIsOn('button.primary');
  await page.keyboard.press('Enter');
  expect(await api.posted('respond')).toMatchObject({ request: 'per_1', reply: 'once' });
  await page.focusIsOn('.result');
  await page.keyboard.press('Escape');
  await page.focusIsOn('.row a');
  expect(await page.evaluate<string>('document.activeElement.textContent')).toContain('Retry failed payments');
});

describe.each([
  ['a phone', PHONE],
  ['a desktop', {}],
])('on %s', (_, pageOptions) => {
  test.override({ pageOptions });

  test('axe finds no fault in either color scheme', async ({ page, api }) => {
    const check = async (what: string): Promise<void> => {
      for (const colorScheme of ['light', 'dark'] as const) {
        await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
        expect(await accessibilityFaults(page), `${what}, ${colorScheme}`).toEqual([]);
      }
    };
    api.setChanges('ses_pay', CHANGES);
    api.setSession('ses_pay', paySession([PERMISSION, QUESTION]));
    await page.open('', '.row');
    await check('the list');
    await page.open('#/s/desk-dotfiles', '.composer');
    await check('a new session');
    await page.open(SESSION_LINK, '.choices');
    await check('a session that asks');
    await page.button('Changes (2)').click();
    await page.locator('.diff').first().waitFor();
    await check('the changes');
  });
});

test('the list runs no animation with reduced motion', async ({ page }) => {
  await page.emulateMedia({ reducedMotion: 'reduce' });
  await page.open('', '.row');
  expect(await page.evaluate<number>('document.getAnimations().length')).toBe(0);
});

test('hostile remote text creates no elements, runs no script and sends no request to another origin', async ({
  page,
  api,
}) => {
  const hostile = { instance: HOSTILE, title: HOSTILE, host: HOSTILE, directory: HOSTILE, reason: HOSTILE };
  const waiting = [{ kind: HOSTILE, id: HOSTILE, text: HOSTILE }];
  api.setFleet(
    fleetOf([session(HOSTILE, { ...hostile, waiting }), session('ses_2', { ...hostile, state: 'failed' })], {
      notes: [HOSTILE],
      machines: [{ host: HOSTILE, state: 'offline', reason: HOSTILE }],
      instances: [{ name: `${HOSTILE}2`, host: HOSTILE, directory: HOSTILE, state: HOSTILE, reason: HOSTILE }],
      you: { name: HOSTILE, role: 'drive', all: true },
    }),
  );
  api.setChanges(HOSTILE, {
    files: [{ path: HOSTILE, added: HOSTILE, removed: 1, patch: `@@\n+${HOSTILE}` }],
    more: 0,
  });
  api.setSession(HOSTILE, hostileSession());
  api.answer('respond', () => ({ status: 400, body: { error: HOSTILE } }));
  api.answer('send', () => ({ status: 400, body: { error: HOSTILE } }));
  const requests: string[] = [];
  page.on('request', (request) => requests.push(request.url()));
  await page.addInitScript(
    `document.addEventListener('securitypolicyviolation', () => console.error('the policy had to help'))`,
  );
  await page.open('', '.row');
  await page.locator('.row a').first().click();
  await page.locator('.ask').nth(1).waitFor();
  await page.button('Allow once').click();
  const refusal = page.locator('.ask .error');
  await refusal.getByText(/onerror/).waitFor();
  api.push(HOSTILE, { kind: 'state', state: 'idle' });
  await page.messageBox.fill('x');
  await page.button('Send').click();
  await page.getByText(/^Not sent. <img/).waitFor();
  await page.button('Changes (1)').click();
  await page.locator('ins.line').waitFor();
  const injectedElements = `document.querySelectorAll('main img, main svg, main script, main b, main iframe, [onerror], [onload], [onclick], [href^="javascript:"]').length`;
  expect(await page.evaluate<number>(injectedElements)).toBe(0);
  expect(await page.evaluate<unknown>('window.ran ?? null')).toBeNull();
  expect(requests.filter((url) => !url.startsWith(`${api.url}/`))).toEqual([]);
});

function hostileSession(): PageLine[] {
  const words = { text: HOSTILE, tool: HOSTILE, title: HOSTILE, state: HOSTILE };
  const parts = ['text', 'reasoning', 'tool', 'file', 'other'].map((kind) => ({ id: kind, kind, ...words }));
  const message = { id: HOSTILE, role: HOSTILE, atMs: 0, parts, error: HOSTILE, done: false };
  const request = { permission: HOSTILE, command: HOSTILE, patterns: [HOSTILE], always: [HOSTILE] };
  const options = [{ label: HOSTILE, description: HOSTILE }];
  const questions = [{ header: HOSTILE, question: HOSTILE, options, multiple: true, custom: true }];
  return [
    { kind: 'session', title: HOSTILE, directory: HOSTILE, state: HOSTILE, reason: HOSTILE, canDrive: true },
    { kind: 'messages', messages: [message] },
    { kind: 'text', message: HOSTILE, part: 'text', text: HOSTILE },
    {
      kind: 'asks',
      asks: [
        { ...PERMISSION, sessionId: HOSTILE, ...request },
        { ...QUESTION, sessionId: HOSTILE, questions },
      ],
    },
    { kind: 'error', text: HOSTILE },
    { kind: HOSTILE },
  ];
}

async function expectFitsPhone(page: BrowserPage, what: string): Promise<void> {
  const faults = `(() => {
    const seen = (one) => one.checkVisibility() && one.closest('.sr-only') === null;
    const all = [...document.querySelectorAll('body *')].filter(seen);
    const wide = all.filter((one) => one.getBoundingClientRect().right > innerWidth + 0.5 && getComputedStyle(one).display !== 'inline');
    const low = [...document.querySelectorAll('button, .button, input[type=text], textarea')].filter(seen)
      .filter((one) => one.getBoundingClientRect().height < 44);
    return [document.documentElement.scrollWidth > innerWidth && 'the page', ...[...wide, ...low].map((one) => one.outerHTML.slice(0, 100))].filter(Boolean);
  })()`;
  expect(await page.evaluate<string[]>(faults), what).toEqual([]);
}

/** Expects an outline of at least 2 px around the focused element. */
async function expectFocusOutline(page: BrowserPage): Promise<void> {
  const width = `parseFloat(getComputedStyle(document.activeElement).outlineWidth) * Number(getComputedStyle(document.activeElement).outlineStyle !== 'none')`;
  expect(await page.evaluate<number>(width)).toBeGreaterThanOrEqual(2);
}
