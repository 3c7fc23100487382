import { mkdir, readdir, readFile, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { systemClock } from '../../src/base/clock.ts';
import { RequestJournal } from '../../src/operations/send/request-journal.ts';
import { tempDir, type TempDir } from '../rig/temp.ts';

const PROMPT = { sessionId: 'ses_1', messageId: 'msg_1', partId: 'prt_1', text: 'a secret plan' };

let temp: TempDir;
let folder: string;
const journal = (): RequestJournal => new RequestJournal(folder, systemClock);

beforeEach(() => {
  temp = tempDir('journal');
  folder = join(temp.path, 'state', 'requests');
});
afterEach(() => temp.close());

describe('request ids', () => {
  test('are found by another process, by instance, without the text on disk and for nobody else to read', async () => {
    expect(await journal().find('one', 'r', PROMPT.text)).toBeUndefined();
    expect(await journal().keep('one', 'r', PROMPT)).toBe(true);
    expect(await journal().find('one', 'r', PROMPT.text)).toMatchObject({ messageId: 'msg_1', partId: 'prt_1' });
    expect(await journal().find('two', 'r', PROMPT.text)).toBeUndefined();
    const [file = ''] = await readdir(folder);
    expect(await readFile(join(folder, file), 'utf8')).not.toContain('secret');
    expect([(await stat(folder)).mode & 0o777, (await stat(join(folder, file))).mode & 0o777]).toEqual([0o700, 0o600]);
  });

  test('stand for one message: a second is not kept, and another text is an error', async () => {
    const [first, second] = await Promise.all([
      journal().keep('one', 'r', PROMPT),
      journal().keep('one', 'r', { ...PROMPT, messageId: 'msg_2' }),
    ]);
    expect([first, second].filter(Boolean)).toHaveLength(1);
    await expect(journal().find('one', 'r', 'another')).rejects.toThrow(/another message.*nothing was sent/);
    expect(await readdir(folder)).toHaveLength(1);
  });

  test('that cannot be kept or read are errors, and nothing is sent', async () => {
    await mkdir(join(temp.path, 'state'));
    await writeFile(folder, '');
    await expect(journal().keep('one', 'r', PROMPT)).rejects.toThrow(/Nothing was sent/);
    await expect(journal().find('one', 'r', PROMPT.text)).rejects.toThrow(/Nothing was sent/);
  });

  test('a damaged one is an error and not taken for a new one', async () => {
    await journal().keep('one', 'r', PROMPT);
    const [file = ''] = await readdir(folder);
    await writeFile(join(folder, file), '{"sessionId":');
    await expect(journal().find('one', 'r', PROMPT.text)).rejects.toThrow(/damaged/);
  });

  test('old ones go when another process keeps one', async () => {
    await journal().keep('one', 'old', PROMPT);
    const [file = ''] = await readdir(folder);
    const monthAgo = new Date(systemClock.now() - 30 * 86_400_000);
    await utimes(join(folder, file), monthAgo, monthAgo);
    await journal().keep('one', 'new', PROMPT);
    expect(await journal().find('one', 'old', PROMPT.text)).toBeUndefined();
    expect(await journal().find('one', 'new', PROMPT.text)).toBeDefined();
  });
});
