import { request } from 'node:http';
import { chmod, readFile, rm } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, expect, test } from 'vitest';

import type { Todo } from '../../src/doctor/report.ts';
import { startFakeOpencode } from '../rig/fake-opencode.ts';
import { listenHttp } from '../rig/http-listener.ts';
import { freePort } from '../rig/ports.ts';
import { startStranger } from '../rig/stranger.ts';
import { type DoctorStage, Kept, lineOf, openDoctorStage, todoThat } from './stage.ts';

let stage: DoctorStage;
beforeAll(async () => {
  stage = await openDoctorStage();
});
afterAll(() => stage[Symbol.asyncDispose]());

interface Fault {
  readonly name: string;
  readonly needsRoot?: true;
  /** Causes it, and registers the cleanup in `kept`. */
  readonly make: (stage: DoctorStage, kept: Kept) => Promise<unknown>;
  /** The subject of the report's line, and its text. */
  readonly subject: string | RegExp;
  readonly says: RegExp;
  readonly verdict?: 'warn';
  /** The doctor's advice. */
  readonly advice: RegExp;
  /** Follows the advice; by default the command is run as it is. */
  readonly follow?: (stage: DoctorStage, todo: Todo) => Promise<unknown>;
}

const CONFIG = '.config/opencode-mcp/config.json';
const isRoot = process.getuid?.() === 0;
const PASSWORD = 'pa55word';

/** Upgrades the opencode that is too old. */
let upgrade: () => unknown = () => {};

const GONE = JSON.stringify({ mcpServers: { mine: { command: '/gone/node', args: ['/gone/opencode-mcp'] } } });

/** Runs the command, which must succeed. */
async function type({ type: run }: DoctorStage, command: string | undefined, input?: string): Promise<void> {
  expect(await run(command ?? 'false', input), command).toMatchObject({ code: 0, stderr: expect.any(String) });
}

/** An instance that wants `PASSWORD`. */
async function locked(kept: Kept, name: string, options: { readonly password?: string } = {}): Promise<void> {
  const opencode = kept.use(await startFakeOpencode({ password: PASSWORD, directory: `/home/ada/${name}` }));
  await stage.registry.add({ name, port: opencode.port, cwd: opencode.directory, id: name }, options);
  kept.defer(() => stage.registry.remove(name, name));
}

/** The faults of a group are caused together, and their advice is followed one after another. */
const GROUPS: Readonly<Record<string, readonly Fault[]>> = {
  'instances, clients and files': [
    {
      name: 'a registration that somebody wrote by hand is dead',
      make: async ({ registry }, kept) => {
        await registry.add({ name: 'dead', port: await freePort() });
        kept.defer(() => registry.remove('dead'));
      },
      subject: 'dead',
      says: /^offline/,
      advice: /nothing listens there any more.*rm \S+dead\.json$/,
    },
    {
      name: 'an opencode-connected was killed, its machine too',
      make: async ({ registry }) => {
        await registry.add({ name: 'killed', port: await freePort(), id: 'killed-1' }, { password: PASSWORD });
        await registry.writeRaw('.killed.claim', `killed-1 4194304 1 ${hostname()}\n`);
      },
      subject: 'killed',
      says: /^offline/,
      advice: /RELAY_REGISTRY_DIR=\S+ opencode-connected cleanup$/,
    },
    {
      name: 'a registration that was cut off',
      make: async ({ registry }, kept) => {
        await registry.writeRaw('cut.json', '{"name":');
        kept.defer(() => registry.remove('cut'));
      },
      subject: /\/cut\.json$/,
      says: /is not complete JSON/,
      verdict: 'warn',
      advice: /write it again, or remove it: rm \S+cut\.json$/,
    },
    {
      name: 'nobody knows the password',
      make: (_, kept) => locked(kept, 'no-password'),
      subject: 'no-password',
      says: /^locked/,
      advice: /then type its password, Enter and Ctrl-D: \(umask 077/,
      follow: (at, { command }) => type(at, command, `${PASSWORD}\n`),
    },
    {
      name: 'the password file is open to others',
      make: async (_, kept) => {
        await locked(kept, 'open-password', { password: PASSWORD });
        await chmod(join(stage.registry.path, '.credentials/open-password'), 0o644);
      },
      subject: 'open-password',
      says: /^locked/,
      advice: /chmod 600 \S+open-password$/,
    },
    {
      name: 'the password is another one',
      make: (_, kept) => locked(kept, 'other-password', { password: 'not that' }),
      subject: 'other-password',
      says: /^locked/,
      advice: /the password from the password file \S+other-password is not that of http:\S+: put the right one there/,
      follow: ({ registry }) => registry.setPassword('other-password', PASSWORD),
    },
    {
      name: "another user's process has the port",
      needsRoot: true,
      make: async ({ registry }, kept) => {
        const { port } = kept.use(await startStranger({ how: 'locked' }));
        await registry.add({ name: 'taken', port, id: 'taken-1' }, { password: PASSWORD });
        kept.defer(() => registry.remove('taken', 'taken-1'));
      },
      subject: 'taken',
      says: /^locked/,
      advice: /end that user's process, or remove the registration: rm \S+taken\.json$/,
    },
    {
      name: 'an opencode is too old',
      make: async ({ registry }, kept) => {
        const directory = '/home/ada/old';
        let version = '1.18.9';
        const answerTo = (url: string): unknown => {
          if (url.startsWith('/path')) return { directory, worktree: directory };
          if (url.startsWith('/global/health')) return { healthy: true, version };
          return url.startsWith('/session/status') ? {} : [];
        };
        const old = await listenHttp(({ url = '' }, response) => {
          response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(answerTo(url)));
        });
        kept.use(old);
        upgrade = () => (version = '1.18.33');
        await registry.add({ name: 'old', port: old.port, cwd: directory });
        kept.defer(() => registry.remove('old'));
      },
      subject: 'old',
      says: /^unsupported/,
      advice: /then start that opencode again: opencode upgrade$/,
      follow: async () => upgrade(),
    },
    {
      name: 'a login page stands before an instance that is listed by URL',
      make: async ({ put, desk }, kept) => {
        const proxy = await listenHttp((incoming, response) => {
          if (incoming.headers['x-token'] !== 'sesame') {
            response.writeHead(200, { 'content-type': 'text/html' }).end('<html><h1>Log in</h1></html>');
            return;
          }
          incoming.pipe(
            request(desk.url + (incoming.url ?? ''), { method: incoming.method ?? 'GET' }, (answer) => {
              response.writeHead(answer.statusCode ?? 502, answer.headers);
              answer.pipe(response);
            }),
          );
        });
        kept.use(proxy);
        await put(CONFIG, JSON.stringify({ instances: [{ name: 'cloud', url: proxy.url }] }));
        kept.defer(() => rm(join(stage.home, CONFIG)));
      },
      subject: 'cloud',
      says: /^offline/,
      advice:
        /a proxy or a login page: set the "headers" that it needs in its entry under "instances" in \S+config\.json/,
      follow: async ({ home, put }) => {
        const config = JSON.parse(await readFile(join(home, CONFIG), 'utf8'));
        config.instances[0].headers = { 'x-token': 'sesame' };
        await put(CONFIG, JSON.stringify(config));
      },
    },
    {
      name: "a client's file is malformed",
      make: async ({ put, home }, kept) => {
        await put('.codex/config.toml', '[mcp_servers\n');
        kept.defer(() => rm(join(home, '.codex'), { recursive: true }));
      },
      subject: 'Codex',
      says: /cannot read \S+config\.toml: line 1/,
      advice: /correct that first: \S+config\.toml.*opencode-mcp init --client codex$/,
      follow: async (at, { command }) => {
        await at.put('.codex/config.toml', '');
        // In a terminal it asks.
        await type(at, `${command} --yes`);
      },
    },
    {
      name: 'a client starts a program that is gone',
      make: async ({ put, home }, kept) => {
        await put('.cursor/mcp.json', GONE);
        kept.defer(() => rm(join(home, '.cursor'), { recursive: true }));
      },
      subject: 'Cursor',
      says: /starts \/gone\/node \/gone\/opencode-mcp, but \/gone\/node does not exist/,
      advice: /opencode-mcp init --client cursor$/,
      follow: (at, { command }) => type(at, `${command} --yes`),
    },
    {
      name: 'the state folder cannot be written',
      make: async ({ put, home }, kept) => {
        await rm(join(home, '.local'), { recursive: true, force: true });
        await put('.local/state/opencode-mcp', 'in the way');
        kept.defer(() => rm(join(home, '.local'), { recursive: true }));
      },
      subject: 'state folder',
      says: /cannot write in \S+opencode-mcp: .* is no folder/,
      advice: /mv \S+opencode-mcp \S+opencode-mcp\.old$/,
    },
    {
      name: 'tailscaled is logged out',
      make: async ({ tailscaled }) => (tailscaled.status = { ...tailscaled.status, BackendState: 'NeedsLogin' }),
      subject: 'tailscaled',
      says: /NeedsLogin: tailscaled is logged out/,
      advice: /tailscale up$/,
      follow: async ({ tailscaled }) => (tailscaled.status = { ...tailscaled.status, BackendState: 'Running' }),
    },
  ],
  'a registry that others can write': [
    {
      name: 'serving was revoked',
      make: async (made) => type(made, 'opencode-mcp node --revoke'),
      subject: 'revoked',
      says: /serve nothing/,
      advice: /serve again: opencode-mcp node --allow$/,
    },
    {
      name: 'the registry directory is open to others',
      make: async ({ registry }, kept) => {
        await chmod(registry.path, 0o777);
        kept.defer(() => chmod(registry.path, 0o700));
      },
      subject: /^desk@/,
      says: /^untrusted/,
      advice: /chmod go-w \S+registry$/,
    },
    {
      name: 'others can write the configuration file',
      make: async ({ put, home }, kept) => {
        await put(CONFIG, '{}', 0o666);
        kept.defer(() => rm(join(home, CONFIG)));
      },
      subject: 'settings',
      says: /other users can change it/,
      verdict: 'warn',
      advice: /chmod 600 \S+config\.json$/,
    },
    {
      name: 'no client starts this program',
      make: async ({ put, home }, kept) => {
        await put('.codex/config.toml', 'model = "gpt-5"\n');
        kept.defer(() => rm(join(home, '.codex'), { recursive: true }));
      },
      subject: 'MCP clients',
      says: /none of these clients starts opencode-mcp/,
      verdict: 'warn',
      advice: /opencode-mcp init$/,
      follow: (at, { command }) => type(at, `${command} --yes`),
    },
    {
      name: 'a tailscaled that was named is not there',
      make: async ({ env }, kept) => {
        const socket = env['TAILSCALE_SOCKET'] ?? '';
        env['TAILSCALE_SOCKET'] = '/nowhere/tailscaled.sock';
        kept.defer(() => void (env['TAILSCALE_SOCKET'] = socket));
      },
      subject: 'tailscaled',
      says: /at \/nowhere\/tailscaled\.sock, status: there is no such socket/,
      advice: /set TAILSCALE_SOCKET to its socket$/,
      follow: async ({ env, tailscaled }) => (env['TAILSCALE_SOCKET'] = tailscaled.socketPath),
    },
  ],
  settings: [
    {
      name: 'the configuration file is malformed',
      make: async ({ put, home }, kept) => {
        await put(CONFIG, '{\n  "instances": [\n  x ]\n}');
        kept.defer(() => rm(join(home, CONFIG), { force: true }));
      },
      subject: 'settings',
      says: /config\.json: is not valid JSON \(line 3\).*no program starts with it/,
      advice: /correct it: \S+config\.json/,
      follow: ({ home }) => rm(join(home, CONFIG)),
    },
    {
      name: 'a source is named that there is not',
      make: async ({ env }, kept) => {
        env['TRANSPORT'] = 'local-rely';
        kept.defer(() => delete env['TRANSPORT']);
      },
      subject: 'settings',
      says: /local-rely.*no program starts with it/,
      advice: /expected .*local-relay/,
      follow: async ({ env }) => (env['TRANSPORT'] = 'local-relay'),
    },
    {
      name: 'something else has the port of the node service',
      make: async ({ env }, kept) => {
        const { port } = kept.use(await listenHttp((_, response) => response.end('hello')));
        const before = env['OPENCODE_NODE_PORT'] ?? '';
        env['OPENCODE_NODE_PORT'] = String(port);
        // Without a TUN device, tailscaled forwards connections to loopback.
        const { status } = stage.tailscaled;
        stage.tailscaled.status = { ...status, TUN: false };
        kept.defer(() => {
          stage.tailscaled.status = status;
          env['OPENCODE_NODE_PORT'] = before;
        });
      },
      subject: 'node service',
      says: /something else answers at 127\.0\.0\.1:\d+ \(HTTP 200\)/,
      advice: /set OPENCODE_NODE_PORT to another on all machines$/,
      follow: async ({ env, nodePort }) => (env['OPENCODE_NODE_PORT'] = String(nodePort)),
    },
  ],
};

test('on a healthy machine there is nothing to do', async () => {
  const { code, report } = await stage.doctor();
  expect(report.todo).toEqual([]);
  expect([code, report.verdict]).toEqual([0, 'ok']);
  expect(report.sections.map(({ id }) => id)).toEqual([
    'program',
    'sources',
    'instances',
    'tailnet',
    'relay',
    'multicast',
    'clients',
    'state',
  ]);
});

test.each(Object.entries(GROUPS))('%s: each fault is named, and gone once its advice is followed', async (_, all) => {
  await using kept = new Kept();
  const faults = all.filter(({ needsRoot }) => needsRoot !== true || isRoot);
  for (const { make } of faults) await make(stage, kept);
  const before = await stage.doctor();
  expect(before.code).toBe(1);
  const advised = faults.map((fault) => {
    const { name, subject, says, verdict = 'broken', advice } = fault;
    const line = lineOf(before.report, subject, says);
    expect(line?.verdict, `${name}: ${JSON.stringify(before.report.sections)}`).toBe(verdict);
    return { fault, todo: todoThat(advice, before.report) };
  });
  // In the order of the report, which has no other advice.
  for (const { text, command } of before.report.todo) {
    const found = advised.find(({ todo }) => todo.text === text && todo.command === command);
    expect(found, text).toBeDefined();
    await (found?.fault.follow?.(stage, found.todo) ?? type(stage, command));
  }
  const after = await stage.doctor();
  expect(after.report.todo).toEqual([]);
  expect([after.code, after.report.verdict], JSON.stringify(after.report.sections)).toEqual([0, 'ok']);
});
