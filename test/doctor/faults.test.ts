import { request } from 'node:http';
import { chmod, readFile, rm } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';

import type { Todo } from '../../src/doctor/report.ts';
import { startFakeOpencode } from '../rig/fake/fake-opencode.ts';
import { listenHttp } from '../rig/http-listener.ts';
import { freePort } from '../rig/ports.ts';
import type { Registry } from '../rig/registry.ts';
import { startStranger } from '../rig/stranger.ts';
import { disposeAtEnd, type DoctorStage, lineOf, openDoctorStage, todoThat } from './stage.ts';

let stage: DoctorStage;
beforeAll(async () => {
  stage = await openDoctorStage();
});
afterAll(() => stage[Symbol.asyncDispose]());

interface Fault {
  readonly needsRoot?: true;
  /** Causes it, and registers the cleanup. */
  readonly make: () => Promise<unknown>;
  /** The subject of the report's line, and its text. */
  readonly subject: string | RegExp;
  readonly says: RegExp;
  readonly verdict?: 'warn';
  /** The doctor's advice. */
  readonly advice: RegExp;
  /** Follows the advice; by default it runs the command. */
  readonly follow?: (todo: Todo) => Promise<unknown>;
}

const CONFIG = '.config/opencode-mcp/config.json';
const isRoot = process.getuid?.() === 0;
const PASSWORD = 'pa55word';

/** Upgrades the opencode that is too old. */
let upgrade: () => unknown = () => {};

const GONE = JSON.stringify({ mcpServers: { mine: { command: '/gone/node', args: ['/gone/opencode-mcp'] } } });

/** Runs the command, which must succeed. */
async function type(command: string | undefined, input?: string): Promise<void> {
  expect(await stage.type(command ?? 'false', input), command).toMatchObject({ code: 0 });
}

/** Writes a file, and removes its outermost folder when the test ends. */
async function put(name: string, text: string, mode?: number): Promise<void> {
  await stage.put(name, text, mode);
  const [folder = name] = name.split('/');
  onTestFinished(() => rm(join(stage.home, folder), { recursive: true, force: true }));
}

/** Registers an instance until the test ends. */
async function register(...[entry, options]: Parameters<Registry['add']>): Promise<void> {
  await stage.registry.add(entry, options);
  onTestFinished(() => stage.registry.remove(entry.name, entry.id));
}

/** Sets a variable of every program until the test ends. */
function setEnv(name: string, value: string): void {
  const before = { ...stage.env };
  stage.env[name] = value;
  onTestFinished(() => {
    delete stage.env[name];
    Object.assign(stage.env, before);
  });
}

/** Changes tailscaled's status until the test ends. */
function setStatus(fields: Readonly<Record<string, unknown>>): void {
  const { status } = stage.tailscaled;
  stage.tailscaled.status = { ...status, ...fields };
  onTestFinished(() => void (stage.tailscaled.status = status));
}

/** Registers an instance that needs `PASSWORD`. */
async function locked(name: string, options: { readonly password?: string } = {}): Promise<void> {
  const opencode = disposeAtEnd(await startFakeOpencode({ password: PASSWORD, directory: `/home/ada/${name}` }));
  await register({ name, port: opencode.port, cwd: opencode.directory, id: name }, options);
}

/** The faults of a group are caused together, and their advice is followed one after another. */
const GROUPS: Readonly<Record<string, Readonly<Record<string, Fault>>>> = {
  'instances, clients and files': {
    'a registration by hand is dead': {
      make: async () => register({ name: 'dead', port: await freePort() }),
      subject: 'dead',
      says: /^offline/,
      advice: /nothing listens there any more.*rm \S+dead\.json$/,
    },
    'an opencode-connected was killed together with its machine': {
      make: async () => {
        await register({ name: 'killed', port: await freePort(), id: 'killed-1' }, { password: PASSWORD });
        await stage.registry.writeRaw('.killed.claim', `killed-1 4194304 1 ${hostname()}\n`);
      },
      subject: 'killed',
      says: /^offline/,
      advice: /RELAY_REGISTRY_DIR=\S+ opencode-connected cleanup$/,
    },
    'a registration is incomplete': {
      make: async () => {
        await stage.registry.writeRaw('cut.json', '{"name":');
        onTestFinished(() => stage.registry.remove('cut'));
      },
      subject: /\/cut\.json$/,
      says: /is not complete JSON/,
      verdict: 'warn',
      advice: /write it again, or remove it: rm \S+cut\.json$/,
    },
    'the password is unknown': {
      make: () => locked('no-password'),
      subject: 'no-password',
      says: /^locked/,
      advice: /then type its password, Enter and Ctrl-D: \(umask 077/,
      follow: ({ command }) => type(command, `${PASSWORD}\n`),
    },
    'the password file is open to others': {
      make: async () => {
        await locked('open-password', { password: PASSWORD });
        await chmod(join(stage.registry.path, '.credentials/open-password'), 0o644);
      },
      subject: 'open-password',
      says: /^locked/,
      advice: /chmod 600 \S+open-password$/,
    },
    'the password is wrong': {
      make: () => locked('other-password', { password: 'not that' }),
      subject: 'other-password',
      says: /^locked/,
      advice: /the password from the password file \S+other-password is not that of http:\S+: put the right one there/,
      follow: () => stage.registry.setPassword('other-password', PASSWORD),
    },
    "another user's process has the port": {
      needsRoot: true,
      make: async () => {
        const { port } = disposeAtEnd(await startStranger({ how: 'locked' }));
        await register({ name: 'taken', port, id: 'taken-1' }, { password: PASSWORD });
      },
      subject: 'taken',
      says: /^locked/,
      advice: /end that user's process, or remove the registration: rm \S+taken\.json$/,
    },
    'an opencode is too old': {
      make: async () => {
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
        disposeAtEnd(old);
        upgrade = () => (version = '1.18.33');
        await register({ name: 'old', port: old.port, cwd: directory });
      },
      subject: 'old',
      says: /^unsupported/,
      advice: /then start that opencode again: opencode upgrade$/,
      follow: async () => upgrade(),
    },
    'a login page answers for an instance that is listed by URL': {
      make: async () => {
        const proxy = await listenHttp((incoming, response) => {
          if (incoming.headers['x-token'] !== 'sesame') {
            response.writeHead(200, { 'content-type': 'text/html' }).end('<html><h1>Log in</h1></html>');
            return;
          }
          incoming.pipe(
            request(stage.desk.url + (incoming.url ?? ''), { method: incoming.method ?? 'GET' }, (answer) => {
              response.writeHead(answer.statusCode ?? 502, answer.headers);
              answer.pipe(response);
            }),
          );
        });
        disposeAtEnd(proxy);
        await put(CONFIG, JSON.stringify({ instances: [{ name: 'cloud', url: proxy.url }] }));
      },
      subject: 'cloud',
      says: /^offline/,
      advice:
        /a proxy or a login page: set the "headers" that it needs in its entry under "instances" in \S+config\.json/,
      follow: async () => {
        const config = JSON.parse(await readFile(join(stage.home, CONFIG), 'utf8'));
        config.instances[0].headers = { 'x-token': 'sesame' };
        await stage.put(CONFIG, JSON.stringify(config));
      },
    },
    "a client's file is malformed": {
      make: () => put('.codex/config.toml', '[mcp_servers\n'),
      subject: 'Codex',
      says: /cannot read \S+config\.toml: line 1/,
      advice: /correct that first: \S+config\.toml.*opencode-mcp init --client codex$/,
      follow: async ({ command }) => {
        await stage.put('.codex/config.toml', '');
        // In a terminal it asks.
        await type(`${command} --yes`);
      },
    },
    'a client starts a program that is gone': {
      make: () => put('.cursor/mcp.json', GONE),
      subject: 'Cursor',
      says: /starts \/gone\/node \/gone\/opencode-mcp, but \/gone\/node does not exist/,
      advice: /opencode-mcp init --client cursor$/,
      follow: ({ command }) => type(`${command} --yes`),
    },
    'the state folder cannot be written': {
      make: async () => {
        await rm(join(stage.home, '.local'), { recursive: true, force: true });
        await put('.local/state/opencode-mcp', 'in the way');
      },
      subject: 'state folder',
      says: /cannot write in \S+opencode-mcp: .* is no folder/,
      advice: /mv \S+opencode-mcp \S+opencode-mcp\.old$/,
    },
    'tailscaled is logged out': {
      make: async () => setStatus({ BackendState: 'NeedsLogin' }),
      subject: 'tailscaled',
      says: /NeedsLogin: tailscaled is logged out/,
      advice: /tailscale up$/,
      follow: async () => setStatus({ BackendState: 'Running' }),
    },
  },
  'a registry that others can write': {
    'serving was revoked': {
      make: () => type('opencode-mcp node --revoke'),
      subject: 'revoked',
      says: /serve nothing/,
      advice: /serve again: opencode-mcp node --allow$/,
    },
    'the registry directory is open to others': {
      make: async () => {
        await chmod(stage.registry.path, 0o777);
        onTestFinished(() => chmod(stage.registry.path, 0o700));
      },
      subject: /^desk@/,
      says: /^untrusted/,
      advice: /chmod go-w \S+registry$/,
    },
    'others can write the configuration file': {
      make: () => put(CONFIG, '{}', 0o666),
      subject: 'settings',
      says: /other users can change it/,
      verdict: 'warn',
      advice: /chmod 600 \S+config\.json$/,
    },
    'no client starts this program': {
      make: () => put('.codex/config.toml', 'model = "gpt-5"\n'),
      subject: 'MCP clients',
      says: /none of these clients starts opencode-mcp/,
      verdict: 'warn',
      advice: /opencode-mcp init$/,
      follow: ({ command }) => type(`${command} --yes`),
    },
    'the configured socket of tailscaled does not exist': {
      make: async () => setEnv('TAILSCALE_SOCKET', '/nowhere/tailscaled.sock'),
      subject: 'tailscaled',
      says: /at \/nowhere\/tailscaled\.sock, status: there is no such socket/,
      advice: /set TAILSCALE_SOCKET to its socket$/,
      follow: async () => setEnv('TAILSCALE_SOCKET', stage.tailscaled.socketPath),
    },
  },
  settings: {
    'the configuration file is malformed': {
      make: () => put(CONFIG, '{\n  "instances": [\n  x ]\n}'),
      subject: 'settings',
      says: /config\.json: is not valid JSON \(line 3\).*no program starts with it/,
      advice: /correct it: \S+config\.json/,
      follow: () => rm(join(stage.home, CONFIG)),
    },
    'a configured source does not exist': {
      make: async () => setEnv('TRANSPORT', 'local-rely'),
      subject: 'settings',
      says: /local-rely.*no program starts with it/,
      advice: /expected .*local-relay/,
      follow: async () => setEnv('TRANSPORT', 'local-relay'),
    },
    'another program has the port of the node service': {
      make: async () => {
        const { port } = disposeAtEnd(await listenHttp((_, response) => response.end('hello')));
        setEnv('OPENCODE_NODE_PORT', String(port));
        // Without a TUN device, tailscaled forwards connections to loopback.
        setStatus({ TUN: false });
      },
      subject: 'node service',
      says: /something else answers at 127\.0\.0\.1:\d+ \(HTTP 200\)/,
      advice: /set OPENCODE_NODE_PORT to another on all machines$/,
      follow: async () => setEnv('OPENCODE_NODE_PORT', String(stage.nodePort)),
    },
  },
};

test('doctor has no advice for a healthy machine', async () => {
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

test.each(Object.entries(GROUPS))(
  'doctor reports each fault of group "%s", and its advice mends them all',
  async (_, all) => {
    const faults = Object.entries(all).filter(([, { needsRoot }]) => needsRoot !== true || isRoot);
    for (const [, { make }] of faults) await make();
    const before = await stage.doctor();
    expect(before.code).toBe(1);
    const advised = faults.map(([name, fault]) => {
      const { subject, says, verdict = 'broken', advice } = fault;
      const line = lineOf(before.report, subject, says);
      expect(line?.verdict, `${name}: ${JSON.stringify(before.report.sections)}`).toBe(verdict);
      return { fault, todo: todoThat(advice, before.report) };
    });
    // Follows the report's advice in its order; there is no other advice.
    for (const { text, command } of before.report.todo) {
      const found = advised.find(({ todo }) => todo.text === text && todo.command === command);
      expect(found, text).toBeDefined();
      await (found?.fault.follow?.(found.todo) ?? type(command));
    }
    const after = await stage.doctor();
    expect(after.report.todo).toEqual([]);
    expect([after.code, after.report.verdict], JSON.stringify(after.report.sections)).toEqual([0, 'ok']);
  },
);
