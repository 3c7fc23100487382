import { execFileSync } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { readSecret } from '../../src/credentials/secret.ts';
import type { SecretCommands } from '../../src/credentials/secret-commands.ts';
import type { SecretRef } from '../../src/config/file/secret-ref.ts';
import { asUser } from '../discovery/as-root.ts';
import { tempDir } from '../rig/temp.ts';

const notAborted = new AbortController().signal;
const noCommands: SecretCommands = { run: () => Promise.reject(new Error('not expected')) };
const uid = process.getuid?.() ?? -1;

function read(ref: SecretRef, commands = noCommands): Promise<string | undefined> {
  return readSecret(ref, { commands }, notAborted);
}

async function problemOf(ref: SecretRef, commands = noCommands): Promise<string> {
  try {
    return `no error but ${JSON.stringify(await read(ref, commands))}`;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

const root = tempDir();
afterAll(() => root.close());
let folder: string;
let path: string;
let counter = 0;

beforeEach(() => {
  folder = join(root.path, `case-${++counter}`);
  path = join(folder, 'pw');
  mkdirSync(folder, { mode: 0o700 });
});

function write(content: string | Buffer, mode = 0o600): void {
  writeFileSync(path, content);
  chmodSync(path, mode);
}

describe('a configured value', () => {
  it('is not returned to a caller that has aborted', async () => {
    const reading = readSecret(
      { kind: 'value', value: 'p' },
      { commands: noCommands },
      AbortSignal.abort(new Error('too late')),
    );
    await expect(reading).rejects.toThrow('too late');
  });

  it('is returned unchanged', async () => {
    expect(await read({ kind: 'value', value: 'p\n' })).toBe('p\n');
  });
});

const commandsPrinting = (output: string): SecretCommands => ({ run: () => Promise.resolve(output) });

it.each([
  ['p w\n\n', 'p w\n'],
  ['p w\r\n', 'p w'],
])('a command gives its output without the final newline: %j', async (output, expected) => {
  expect(await read({ kind: 'command', argv: ['pass', 'show'] }, commandsPrinting(output))).toBe(expected);
});

it.each<[ref: SecretRef, problem: string]>([
  [{ kind: 'value', value: '' }, 'the configured password is empty; expected a password'],
  [
    { kind: 'unset', variable: 'OPENCODE_PW' },
    'the environment variable OPENCODE_PW is not set; set it and start this again',
  ],
  [
    { kind: 'command', argv: ['pass', 'hunter2'] },
    'the output of the password command pass is empty; expected a password',
  ],
])('%j is an error', async (ref, problem) => {
  expect(await problemOf(ref, commandsPrinting('\n'))).toBe(problem);
});

describe.each([
  { kind: 'a password file', owner: {} },
  { kind: 'a password file with an owner', owner: { ownerUid: uid } },
])('$kind', ({ owner }) => {
  it.each([
    ['without a newline', 'p w', 'p w'],
    ['with a newline', 'p w\n', 'p w'],
    ['with a Windows newline', 'p w\r\n', 'p w'],
    ['with two newlines, of which one is part of the password', 'p w\n\n', 'p w\n'],
    ['of 8192 bytes', 'p'.repeat(8192), 'p'.repeat(8192)],
    ['with non-ASCII characters', 'žluť→', 'žluť→'],
  ])('is read: %s', async (_, content, expected) => {
    write(content);
    expect(await read({ kind: 'file', path, ...owner })).toBe(expected);
  });

  it('may be missing if optional', async () => {
    expect(await read({ kind: 'file', path, optional: true, ...owner })).toBeUndefined();
    expect(await read({ kind: 'file', path: join(folder, 'none', 'pw'), optional: true, ...owner })).toBeUndefined();
  });

  it('may not be missing if required', async () => {
    expect(await problemOf({ kind: 'file', path, ...owner })).toBe(
      `cannot read the password file ${path}: no such file; create it with the password in it`,
    );
  });

  it.each(['', '\n'])('may not be empty: %j', async (content) => {
    write(content);
    expect(await problemOf({ kind: 'file', path, optional: true, ...owner })).toBe(
      `the password file ${path} is empty; expected a password`,
    );
  });

  it('may not be larger than 8192 bytes', async () => {
    write('hunter2'.repeat(1200));
    expect(await problemOf({ kind: 'file', path, optional: true, ...owner })).toBe(
      `will not use ${path} for a password: it is larger than 8192 bytes; put only the password into it`,
    );
  });

  it.each([
    ['a folder', () => mkdirSync(path, { mode: 0o700 })],
    ['a named pipe, and does not block', () => execFileSync('mkfifo', ['-m', '600', path])],
  ])('may not be %s', async (_, create) => {
    create();
    expect(await problemOf({ kind: 'file', path, ...owner })).toBe(
      `will not use ${path} for a password: it is not a regular file; put the password into one`,
    );
  });

  it('is not read for a caller that has aborted', async () => {
    write('p');
    await expect(
      readSecret({ kind: 'file', path, ...owner }, { commands: noCommands }, AbortSignal.abort(new Error('too late'))),
    ).rejects.toThrow('too late');
  });
});

describe('a configured password file', () => {
  it('may be a symbolic link, as mounted secrets are, with any mode', async () => {
    writeFileSync(join(folder, 'data'), 'p', { mode: 0o644 });
    symlinkSync('data', path);
    chmodSync(folder, 0o755);
    expect(await read({ kind: 'file', path })).toBe('p');
  });
});

describe('a password file with an owner', () => {
  const refusal = (what: string, reason: string): string => `will not use ${what} for a password: ${reason}`;
  const openToOthers = (mode: string, chmod: string, what: string): string =>
    `other users have access to it (mode ${mode}); run: chmod ${chmod} ${what}`;

  it.each(['0640', '0604', '0620', '0601'])('may not be open to others: %s', async (mode) => {
    write('hunter2', Number.parseInt(mode, 8));
    expect(await problemOf({ kind: 'file', path, ownerUid: uid, optional: true })).toBe(
      refusal(path, openToOthers(mode, '600', path)),
    );
  });

  it.each([
    ['0710', '0710'],
    ['0701', '0701'],
    ['1777', '0777'],
  ])('may not be in a folder that is open to others: %s', async (mode, shown) => {
    write('hunter2');
    chmodSync(folder, Number.parseInt(mode, 8));
    expect(await problemOf({ kind: 'file', path, ownerUid: uid, optional: true })).toBe(
      refusal(folder, openToOthers(shown, '700', folder)),
    );
  });

  it('may not be in a folder that is a link', async () => {
    write('hunter2');
    const link = `${folder}-link`;
    symlinkSync(folder, link);
    expect(await problemOf({ kind: 'file', path: join(link, 'pw'), ownerUid: uid })).toBe(
      refusal(link, 'it is not a folder; a password file lies in a folder of its own'),
    );
  });

  it('may not be a symbolic link', async () => {
    writeFileSync(join(folder, 'data'), 'hunter2', { mode: 0o600 });
    symlinkSync('data', path);
    expect(await problemOf({ kind: 'file', path, ownerUid: uid })).toBe(
      `cannot read the password file ${path}: it is a symbolic link; put the file itself there`,
    );
  });

  it('must be in a folder of that owner', async () => {
    write('hunter2');
    expect(await problemOf({ kind: 'file', path, ownerUid: uid + 1 })).toBe(
      refusal(folder, `it belongs to user id ${uid}, not ${uid + 1}; remove it`),
    );
  });

  it.skipIf(uid !== 0)('is refused with the uid to run as when it belongs to another user (needs root)', async () => {
    write('hunter2');
    chownSync(path, 1000, 1000);
    chownSync(folder, 1000, 1001);
    const ref = { kind: 'file', path, ownerUid: 1000, optional: true } as const;
    chmodSync(root.path, 0o755);
    const advice = 'run this as uid 1000 (docker run --user 1000:1001)';
    expect(await asUser(65_534, () => problemOf(ref))).toBe(
      `cannot read the password file ${path}: it is another user's; ${advice}`,
    );
    chmodSync(folder, 0o755);
    expect(await asUser(65_534, () => problemOf(ref))).toBe(
      refusal(folder, `${advice}; besides, ${openToOthers('0755', '700', folder)}`),
    );
  });

  it.skipIf(uid !== 0)('must belong to that owner itself (needs root)', async () => {
    write('hunter2');
    chownSync(path, 12_345, 12_345);
    expect(await problemOf({ kind: 'file', path, ownerUid: 0 })).toBe(
      refusal(path, 'it belongs to user id 12345, not 0; remove it'),
    );
  });

  it('is named on one line in errors', async () => {
    const odd = join(folder, 'a\nb\u001b[31m');
    expect(await problemOf({ kind: 'file', path: odd, ownerUid: uid })).toBe(
      `cannot read the password file ${folder}/a b: no such file; create it with the password in it`,
    );
  });
});
