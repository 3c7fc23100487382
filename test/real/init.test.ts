import { execFile, spawnSync } from 'node:child_process';
import { watch } from 'node:fs';
import { mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import process from 'node:process';
import { stripVTControlCharacters } from 'node:util';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { SERVER_SCRIPT } from '../rig/programs/mcp-child.ts';
import { isSkipped } from '../rig/needed.ts';
import { NO_MULTICAST } from '../rig/no-multicast.ts';
import { isMissing, OLDEST_OPENCODE, PINNED_OPENCODE } from '../rig/opencode/opencode-binaries.ts';
import { endProcessesIn } from '../rig/processes.ts';
import { tempDir, type TempDir } from '../rig/temp.ts';
import { component } from './stage.ts';

const CLAUDE = component('@anthropic-ai/claude-code-linux-x64/claude');
const CODEX = component('codex-linux-x64/vendor/x86_64-unknown-linux-musl/bin/codex');
const GEMINI = component('@google/gemini-cli/bundle/gemini.js');

/** A network namespace without any interface: clients look for updates and report home. */
const OFFLINE = process.getuid?.() === 0 ? ['--net'] : ['--net', '--map-root-user'];

const canUnshare = (): boolean =>
  !isSkipped(spawnSync('unshare', [...OFFLINE, 'true']).status === 0 ? undefined : 'needs unshare --net');

interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

let temp: TempDir;
let env: Readonly<Record<string, string>>;

beforeAll(async () => {
  temp = tempDir('opencode-mcp-clients');
  const bin = join(temp.path, 'bin');
  await mkdir(bin);
  for (const [name, target] of Object.entries({
    claude: CLAUDE,
    codex: CODEX,
    opencode: PINNED_OPENCODE,
    node: process.execPath,
  }))
    await symlink(target, join(bin, name));
  await writeFile(join(bin, 'gemini'), `#!/bin/sh\nexec node ${GEMINI} "$@"\n`, { mode: 0o755 });
  env = {
    PATH: `${bin}:/usr/bin:/bin`,
    HOME: temp.path,
    TMPDIR: temp.tmp,
    DISABLE_AUTOUPDATER: '1',
    ...NO_MULTICAST,
  };
  // For the servers that clients start without this environment.
  await mkdir(join(temp.path, '.config/opencode-mcp'), { recursive: true });
  const settings = { mdnsInterfaces: 'none', transport: 'local-relay', registryDir: join(temp.path, 'registry') };
  await writeFile(join(temp.path, '.config/opencode-mcp/config.json'), JSON.stringify(settings), { mode: 0o600 });
  // Gemini CLI starts no server in an untrusted folder.
  await mkdir(join(temp.path, '.gemini'));
  await writeFile(
    join(temp.path, '.gemini/settings.json'),
    '{\n  "security": { "folderTrust": { "enabled": false } }\n}\n',
  );
});
afterAll(async () => {
  await endProcessesIn(temp.tmp);
  await temp.close();
});

function run(program: string, args: readonly string[], more: Readonly<Record<string, string>> = {}): Promise<Ended> {
  return new Promise((resolve) => {
    const limits = { cwd: temp.path, env: { ...env, ...more }, timeout: 120_000, killSignal: 'SIGKILL' } as const;
    execFile('unshare', [...OFFLINE, program, ...args], limits, (error, stdout, stderr) =>
      resolve({ code: typeof error?.code === 'number' ? error.code : error === null ? 0 : -1, stdout, stderr }),
    );
  });
}

const init = (...args: string[]): Promise<Ended> => run(process.execPath, [SERVER_SCRIPT, 'init', ...args]);
const shown = ({ stdout, stderr }: Ended): string => stripVTControlCharacters(stdout + stderr);

describe.skipIf([CLAUDE, CODEX, GEMINI, PINNED_OPENCODE].some(isMissing) || !canUnshare())(
  'real clients, in a fresh home',
  () => {
    test('all clients list the server after init, and none after a removal', { timeout: 400_000 }, async () => {
      const versions = [
        ['claude', '--version'],
        ['codex', '--version'],
        ['gemini', '--version'],
        ['opencode', '--version'],
      ] as const;
      for (const [program, flag] of versions) process.stdout.write(`${program} ${(await run(program, [flag])).stdout}`);

      const first = await init('--yes');
      expect([first.code, first.stderr]).toEqual([0, expect.not.stringContaining('error')]);
      for (const title of ['Claude Code', 'Codex', 'opencode', 'Gemini CLI'])
        expect(first.stdout).toMatch(new RegExp(`^${title}: written; `, 'm'));
      expect(first.stdout).toContain('Not found here: Claude Desktop, VS Code, Cursor, Zed');

      // Three of them start the server to see whether it answers.
      expect(shown(await run('claude', ['mcp', 'list']))).toMatch(/^opencode: \S+ \S+opencode-mcp\.js - ✔ Connected$/m);
      expect(shown(await run('gemini', ['mcp', 'list']))).toMatch(/✓ opencode: .* - Connected/);
      expect(shown(await run('opencode', ['mcp', 'list']))).toMatch(/✓ opencode connected/);
      const [codex] = JSON.parse((await run('codex', ['mcp', 'list', '--json'])).stdout) as readonly object[];
      expect(codex).toMatchObject({
        name: 'opencode',
        enabled: true,
        transport: {
          type: 'stdio',
          command: expect.stringMatching(/^\//) as string,
          args: [expect.stringMatching(/^\//)],
        },
      });

      // The clients have written their files meanwhile, and kept the entry.
      expect((await init('--yes')).stdout).toMatch(/Nothing to change\.\n$/);
      expect((await init('--remove', '--yes')).code).toBe(0);
      for (const program of ['claude', 'gemini', 'opencode', 'codex'])
        expect(shown(await run(program, ['mcp', 'list']))).not.toContain('opencode-mcp.js');
    });

    test('an entry that a client wrote itself is recognized: nothing is added twice', async () => {
      const words = [process.execPath, SERVER_SCRIPT];
      await run('claude', ['mcp', 'add', '--scope', 'user', 'mine', '--', ...words]);
      await run('codex', ['mcp', 'add', 'mine', '--', ...words]);
      await run('gemini', ['mcp', 'add', '--scope', 'user', 'mine', ...words]);
      const { clients } = JSON.parse((await init('--json')).stdout) as {
        readonly clients: readonly { change: string }[];
      };
      const changes = Object.fromEntries(
        clients.map((one) => Object.values(one)).map(([name, , change]) => [name, change]),
      );
      expect(changes).toMatchObject({ 'claude-code': 'none', codex: 'none', gemini: 'none' });
      await init('--remove', '--yes');
      expect(shown(await run('codex', ['mcp', 'list']))).not.toContain('mine');
    });

    test('Claude Code takes the same lock as init before it writes its file', async () => {
      // Holding the lock would make it wait for ten seconds and longer.
      const seen = new Set<string | null>();
      const watcher = watch(temp.path, (_, name) => seen.add(name));
      const added = await run('claude', ['mcp', 'add', '--scope', 'user', 'another', '--', '/bin/true']);
      watcher.close();
      expect(added.code).toBe(0);
      expect(seen).toContain('.claude.json');
      expect(seen).toContain('.claude.json.lock');
    });

    test('opencode reads the entry in the form of either generation, in a file with comments', async () => {
      const file = join(temp.path, '.config/opencode/opencode.json');
      const forms = ['{\n  // mine\n  "mcp": {\n    "servers": {}\n  }\n}\n', '{\n  // mine\n  "mcp": {},\n}\n'];
      for (const [index, text] of forms.entries()) {
        await writeFile(file, text);
        expect((await init('--client', 'opencode', '--yes')).code).toBe(0);
        expect(await readFile(file, 'utf8')).toContain('// mine');
        expect(shown(await run('opencode', ['mcp', 'list']))).toMatch(/✓ opencode connected/);
        // The oldest supported version does not know the form of generation 2.
        if (index === 1 && !isMissing(OLDEST_OPENCODE))
          expect(shown(await run(OLDEST_OPENCODE, ['mcp', 'list']))).toMatch(/✓ opencode connected/);
      }
    });
  },
);
