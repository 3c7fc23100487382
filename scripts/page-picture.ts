// Writes docs/page.png: the page in a real Chromium, served by a scripted node with three machines.
import { writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { CHANGES, paySession, threeMachines } from '../test/page/browser/scenes.ts';
import { openBrowser } from '../test/rig/programs/browser.ts';
import { startPageApi } from '../test/rig/fake/page-api.ts';
import { until } from '../test/rig/wait.ts';
import { smallPng } from './small-png.ts';

const FILE = join(dirname(dirname(fileURLToPath(import.meta.url))), 'docs', 'page.png');

await using api = await startPageApi();
api.setFleet(threeMachines());
api.setSession('ses_pay', paySession());
api.setChanges('ses_pay', CHANGES);
await using browser = await openBrowser();
const page = await browser.page({ viewport: { width: 1200, height: 780 }, colorScheme: 'light' });
await page.emulateMedia({ reducedMotion: 'reduce' });
await page.goto(`${api.url}/#/s/desk-shop/ses_pay/per_1`);
await page.getByRole('button', { name: 'Changes (2)' }).waitFor();
await until('a card that can be pressed', () => page.getByRole('button', { name: 'Allow once' }).isEnabled());
await writeFile(FILE, smallPng(await page.screenshot()));
process.stdout.write(`Wrote ${FILE}\n`);
