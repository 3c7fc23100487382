import { readdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { systemClock } from '../../src/base/clock.ts';
import type { Candidate } from '../../src/model/candidate.ts';
import type { Instance } from '../../src/model/instance.ts';
import {
  type KeptRequest,
  type RequestKey,
  RequestJournal,
  requestKey,
} from '../../src/operations/send/request-journal.ts';
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

type EndpointClaims = Pick<Candidate['claims'], 'id' | 'hostname'> & { readonly url?: string };

/** The key of a request to an instance with these endpoints. */
function keyFor(
  places: readonly EndpointClaims[],
  { name = 'one', sessionId, directory = '/p' }: { name?: string; sessionId?: string; directory?: string } = {},
): RequestKey {
  const endpoints = places.map(({ url = 'http://127.0.0.1:4096', ...claims }) => ({
    candidate: { claims, endpoint: { url } },
  }));
  const instance = { name, server: { endpoints } } as unknown as Instance;
  return requestKey({ instance, directory }, 'r', sessionId);
}

const ONE = keyFor([{ id: 'one', hostname: 'laptop' }]);

async function claimRequest(key: RequestKey, prompt = PROMPT): Promise<KeptRequest | undefined> {
  return await journal().claim(key, await journal().find(key, prompt.text), prompt);
}

const messageOf = async (key: RequestKey): Promise<string | undefined> =>
  (await journal().find(key, PROMPT.text)).entry?.messageId;

describe('request ids', () => {
  test('are found per instance by another process; their files hold no text and are private', async () => {
    expect(await messageOf(ONE)).toBeUndefined();
    expect(await claimRequest(ONE)).toBeDefined();
    expect((await journal().find(ONE, PROMPT.text)).entry).toMatchObject({ messageId: 'msg_1', partId: 'prt_1' });
    expect(await messageOf(keyFor([{ id: 'two', hostname: 'desktop' }]))).toBeUndefined();
    for (const file of await readdir(folder)) {
      expect(await readFile(join(folder, file), 'utf8')).not.toContain('secret');
      expect((await stat(join(folder, file))).mode & 0o777).toBe(0o600);
    }
    expect((await stat(folder)).mode & 0o777).toBe(0o700);
  });

  test.each<[string, readonly EndpointClaims[], readonly EndpointClaims[]]>([
    ['its id', [{ id: 'one', hostname: 'laptop' }], [{ id: 'one', hostname: 'other' }]],
    ['the id of an endpoint that was proven since', [{ hostname: 'laptop' }], [{ id: 'one' }, { hostname: 'laptop' }]],
    [
      'the remaining endpoints when the one with the id is gone',
      [{ id: 'one' }, { hostname: 'laptop' }],
      [{ hostname: 'laptop' }],
    ],
    ['its machine, whatever the case and domain', [{ hostname: 'Laptop.local' }], [{ hostname: 'laptop' }]],
    [
      'its machine and directory, after a restart with another id',
      [{ id: 'a', hostname: 'm' }],
      [{ id: 'b', hostname: 'm' }],
    ],
    ['the address where no machine is claimed', [{ url: 'http://10.0.0.5:4096' }], [{ url: 'http://10.0.0.5:4096' }]],
  ])('are found by %s, under any name', async (_, before, now) => {
    await claimRequest(keyFor(before));
    expect(await messageOf(keyFor(now, { name: 'one@host' }))).toBe('msg_1');
  });

  test.each<[string, readonly EndpointClaims[], readonly EndpointClaims[], string?]>([
    ['another machine', [{ hostname: 'laptop' }], [{ hostname: 'desktop' }]],
    ['another port of this one, which may be a tunnel', [{}], [{ url: 'http://127.0.0.1:4097' }]],
    ['another directory of the same opencode', [{ id: 'one' }], [{ id: 'one' }], '/p/worktree'],
  ])('are not found for %s', async (_, before, now, directory = '/p') => {
    await claimRequest(keyFor(before));
    expect(await messageOf(keyFor(now, { directory }))).toBeUndefined();
  });

  test('are claimed again by the last claimer if its message did not arrive', async () => {
    const first = await claimRequest(ONE);
    const secondClaim = await journal().claim(ONE, first!, { ...PROMPT, messageId: 'msg_2' });
    expect([secondClaim?.entry?.messageId, await messageOf(ONE)]).toEqual(['msg_2', 'msg_2']);
  });

  test('belong to one session each; without a session they mean the first message', async () => {
    const [first, second] = ['ses_1', 'ses_2'].map((sessionId) => keyFor([{ id: 'one' }], { sessionId }));
    await claimRequest(first!);
    expect(await messageOf(second!)).toBeUndefined();
    await claimRequest(second!, { ...PROMPT, sessionId: 'ses_2', messageId: 'msg_2' });
    expect([await messageOf(first!), await messageOf(second!), await messageOf(keyFor([{ id: 'one' }]))]).toEqual([
      'msg_1',
      'msg_2',
      'msg_1',
    ]);
  });

  test('only one of many concurrent claims succeeds, and another text is an error', async () => {
    const claims = await Promise.all(
      Array.from({ length: 20 }, (_, index) => claimRequest(ONE, { ...PROMPT, messageId: `msg_${index}` })),
    );
    expect(claims.filter((claim) => claim !== undefined)).toHaveLength(1);
    expect((await readdir(folder)).filter((name) => name.endsWith('.tmp'))).toEqual([]);
    await expect(journal().find(ONE, 'another')).rejects.toThrow(/was used for another message/);
  });

  test('only one of many concurrent claims for a new message succeeds', async () => {
    await claimRequest(ONE);
    const found = await journal().find(ONE, PROMPT.text);
    const claims = await Promise.all(
      Array.from({ length: 20 }, (_, index) =>
        journal().claim(ONE, found, { ...PROMPT, messageId: `msg_new${index}` }),
      ),
    );
    expect(claims.filter((claim) => claim !== undefined)).toHaveLength(1);
    expect(await messageOf(ONE)).toMatch(/^msg_new/);
    // A result of `find` from before the first claim is outdated too.
    expect(await journal().claim(ONE, { ...found, count: 0 }, PROMPT)).toBeUndefined();
  });

  test('ids that cannot be kept or read are errors; a damaged file does not count as new', async () => {
    await claimRequest(ONE);
    for (const file of await readdir(folder)) await writeFile(join(folder, file), '{"sessionId":');
    await expect(journal().find(ONE, PROMPT.text)).rejects.toThrow(/damaged/);
    await rm(folder, { recursive: true });
    await writeFile(folder, '');
    const noEntry = { entry: undefined, chain: 'c', count: 0 };
    await expect(journal().claim(ONE, noEntry, PROMPT)).rejects.toThrow(/cannot keep request_id in /);
    await expect(journal().find(ONE, PROMPT.text)).rejects.toThrow(/cannot keep request_id in /);
  });

  test('old files are removed when another process keeps an id', async () => {
    await claimRequest(ONE);
    const monthAgo = new Date(systemClock.now() - 30 * 86_400_000);
    for (const file of await readdir(folder)) await utimes(join(folder, file), monthAgo, monthAgo);
    const other = keyFor([{ id: 'other', hostname: 'other' }]);
    await claimRequest(other);
    expect([await messageOf(ONE), await messageOf(other)]).toEqual([undefined, 'msg_1']);
  });
});
