import { expect, test } from 'vitest';

import { accessibilityFaults, type BrowserPage } from '../../rig/browser.ts';
import type { PageLine } from '../../rig/page-api.ts';
import { until } from '../../rig/wait.ts';
import { CHANGES, fleetOf, PERMISSION, paySession, QUESTION, session } from './scenes.ts';
import { browserSuite, posted } from './stage.ts';

const open = browserSuite();

const PHONE = { width: 360, height: 740 };
const LINK = '#/s/desk-shop/ses_pay';
const LONG = 'Unbreakable'.repeat(40);
/** Each view of the page, and an element that shows once it is complete. */
const VIEWS = [
  ['the list', '', '.row'],
  ['a session that asks', LINK, '.choices'],
  ['a new session', '#/s/desk-dotfiles', '.composer'],
] as const;

/** Stands in every remote string. */
const HOSTILE = [
  `<img src=x onerror="window.ran=1">`,
  `<script>window.ran=1</script>`,
  `"><svg onload=window.ran=1>`,
  `javascript:window.ran=1`,
  '`${window.ran=1}` **<b onclick=window.ran=1>x</b>**',
  '```html\n<img src=http://evil.example/x onerror=window.ran=1>\n```',
].join(' ');

test('on a phone nothing is wider than the screen, and each button is as high as a thumb', async () => {
  await using stage = await open({ viewport: PHONE, hasTouch: true });
  const { page, api } = stage;
  const long = { title: LONG, host: LONG, directory: `/${LONG}` };
  const waiting = [{ kind: 'permission', id: 'per_1', text: LONG }];
  api.setFleet(
    fleetOf([session('ses_pay', { ...long, waiting }), session('ses_2', { ...long, state: 'failed', reason: LONG })], {
      notes: [LONG],
    }),
  );
  api.setChanges('ses_pay', {
    files: [{ path: LONG, added: 1, removed: 0, patch: `@@ ${LONG}\n+${LONG}\n` }],
    more: 3,
  });
  const command = { ...PERMISSION, command: LONG, patterns: [LONG], always: [LONG] };
  const asked = {
    ...QUESTION,
    questions: [{ question: LONG, options: [{ label: LONG, description: LONG }], multiple: false, custom: true }],
  };
  api.setSession('ses_pay', [
    { kind: 'session', title: LONG, directory: `/${LONG}`, state: 'retrying', reason: LONG, canDrive: true },
    ...paySession([command, asked]).slice(1),
    { kind: 'text', message: 'msg_2', part: 'prt_3', text: ` ${LONG}\n\n\`\`\`\n${LONG}\n\`\`\`` },
    { kind: 'error', text: LONG },
  ]);
  await stage.open('', '.row');
  await fitsPhone(page, 'the list');
  await page.goto(`${api.url}/${LINK}`);
  await page.locator('.choices').first().waitFor();
  await page.getByRole('button', { name: 'Changes (4)' }).waitFor();
  await fitsPhone(page, 'the session');
  // The command is never cut.
  const hidden = `(() => { const one = document.querySelector('.command'); return one.scrollHeight - one.clientHeight + one.scrollWidth - one.clientWidth; })()`;
  expect(await page.evaluate<number>(hidden)).toBe(0);
  await page.getByRole('button', { name: 'Changes (4)' }).click();
  await page.locator('ins.line').waitFor();
  await fitsPhone(page, 'the changes');
  await page.getByRole('link', { name: 'Back to all sessions' }).click();
  await page.locator('.row').first().waitFor();
});

test('by keyboard alone: past the list\u2019s head, into a session, its request, and back', async () => {
  await using stage = await open();
  const { page, api } = stage;
  await stage.open('', '.row');
  await page.keyboard.press('Tab');
  await stage.focusIsOn('.skip');
  await page.keyboard.press('Enter');
  await stage.focusIsOn('#fleet');
  await page.keyboard.press('Tab');
  await stage.focusIsOn('.row a');
  await focusIsSeen(page);
  await page.keyboard.press('Enter');
  await stage.focusIsOn('.ask');
  await focusIsSeen(page);
  await until('a card that can be pressed', () => page.locator('.ask button.primary').isEnabled());
  for (const stop of ['button.primary', 'input[name=word]', 'button[type=submit]', 'textarea']) {
    await page.keyboard.press('Tab');
    await stage.focusIsOn(stop);
    await focusIsSeen(page);
  }
  for (let back = 0; back < 3; back += 1) await page.keyboard.press('Shift+Tab');
  await stage.focusIsOn('button.primary');
  await page.keyboard.press('Enter');
  expect(await posted(api, 'respond')).toMatchObject({ request: 'per_1', reply: 'once' });
  await stage.focusIsOn('.result');
  await page.keyboard.press('Escape');
  await stage.focusIsOn('.row a');
  expect(await page.evaluate<string>('document.activeElement.textContent')).toContain('Retry failed payments');
});

test('Escape goes back from the message box too, and its text is there again', async () => {
  await using stage = await open({ viewport: PHONE });
  const { page } = stage;
  await stage.open(LINK, '.composer');
  await page.getByRole('textbox', { name: 'Message' }).fill('Half a thought');
  await page.keyboard.press('Escape');
  await page.locator('.row').first().waitFor();
  await page.goto(`${stage.api.url}/${LINK}`);
  await page.locator('.composer').waitFor();
  expect(await page.getByRole('textbox', { name: 'Message' }).inputValue()).toBe('Half a thought');
});

for (const colorScheme of ['light', 'dark'] as const)
  test(`axe finds nothing, ${colorScheme}`, async () => {
    for (const viewport of [PHONE, { width: 1280, height: 800 }]) {
      await using stage = await open({ colorScheme, viewport });
      const { page, api } = stage;
      api.setChanges('ses_pay', CHANGES);
      api.setSession('ses_pay', paySession([PERMISSION, QUESTION]));
      for (const [what, hash, selector] of VIEWS) {
        await stage.open(hash, selector);
        await page.reload();
        await page.locator(selector).first().waitFor();
        expect(await accessibilityFaults(page), what).toEqual([]);
      }
      await stage.open(LINK, '.choices');
      await page.getByRole('button', { name: 'Changes (2)' }).click();
      await page.locator('.diff').first().waitFor();
      expect(await accessibilityFaults(page), 'the changes').toEqual([]);
    }
  });

test('nothing moves with reduced motion', async () => {
  await using stage = await open();
  const { page } = stage;
  await page.emulateMedia({ reducedMotion: 'reduce' });
  await stage.open('', '.row');
  const moving = 'document.getAnimations().length';
  expect(await page.evaluate<number>(moving)).toBe(0);
});

test('remote text stays text: nothing of it runs, and nothing leaves the origin', async () => {
  await using stage = await open();
  const { page, api, requests, faults } = stage;
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
  await page.addInitScript(
    `document.addEventListener('securitypolicyviolation', () => console.error('the policy had to help'))`,
  );
  await stage.open('', '.row');
  await page.locator('.row a').first().click();
  await page.locator('.ask').nth(1).waitFor();
  await page.getByRole('button', { name: 'Allow once' }).click();
  await page
    .locator('.ask .error')
    .getByText(/onerror/)
    .waitFor();
  api.push(HOSTILE, { kind: 'state', state: 'idle' });
  await page.getByRole('textbox', { name: 'Message' }).fill('x');
  await page.getByRole('button', { name: 'Send' }).click();
  await page.getByText(/^Not sent. <img/).waitFor();
  await page.getByRole('button', { name: 'Changes (1)' }).click();
  await page.locator('ins.line').waitFor();
  const made = `document.querySelectorAll('main img, main svg, main script, main b, main iframe, [onerror], [onload], [onclick], [href^="javascript:"]').length`;
  expect(await page.evaluate<number>(made)).toBe(0);
  expect(await page.evaluate<unknown>('window.ran ?? null')).toBeNull();
  expect(requests.filter((url) => !url.startsWith(`${api.url}/`))).toEqual([]);
  expect(faults).toEqual([]);
});

function hostileSession(): PageLine[] {
  const part = (kind: string): PageLine => ({
    id: kind,
    kind,
    text: HOSTILE,
    tool: HOSTILE,
    title: HOSTILE,
    state: HOSTILE,
  });
  const parts = ['text', 'reasoning', 'tool', 'file', 'other'].map(part);
  const message = { id: HOSTILE, role: HOSTILE, atMs: 0, parts, error: HOSTILE, done: false };
  const permission = {
    ...PERMISSION,
    sessionId: HOSTILE,
    permission: HOSTILE,
    command: HOSTILE,
    patterns: [HOSTILE],
    always: [HOSTILE],
  };
  const options = [{ label: HOSTILE, description: HOSTILE }];
  const questions = [{ header: HOSTILE, question: HOSTILE, options, multiple: true, custom: true }];
  return [
    { kind: 'session', title: HOSTILE, directory: HOSTILE, state: HOSTILE, reason: HOSTILE, canDrive: true },
    { kind: 'messages', messages: [message] },
    { kind: 'text', message: HOSTILE, part: 'text', text: HOSTILE },
    { kind: 'asks', asks: [permission, { ...QUESTION, sessionId: HOSTILE, questions }] },
    { kind: 'error', text: HOSTILE },
    { kind: HOSTILE },
  ];
}

async function fitsPhone(page: BrowserPage, what: string): Promise<void> {
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

/** By an outline. */
async function focusIsSeen(page: BrowserPage): Promise<void> {
  const width = `parseFloat(getComputedStyle(document.activeElement).outlineWidth) * Number(getComputedStyle(document.activeElement).outlineStyle !== 'none')`;
  expect(await page.evaluate<number>(width)).toBeGreaterThanOrEqual(2);
}
