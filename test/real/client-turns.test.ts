import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import process from 'node:process';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { type ClientModel, startCodexModel, startGeminiModel } from '../rig/client-models.ts';
import { SERVER_SCRIPT } from '../rig/mcp-child.ts';
import { expectedReply } from '../rig/model-script.ts';
import { NamespaceSet, spawnIn } from '../rig/namespaces.ts';
import { NO_MULTICAST } from '../rig/no-multicast.ts';
import type { Opencode } from '../rig/opencode.ts';
import { isMissing } from '../rig/opencode-binaries.ts';
import { type ForwardedPort, forwardInto } from '../rig/forwarded-port.ts';
import { endProcessesIn } from '../rig/processes.ts';
import { tempDir, type TempDir } from '../rig/temp.ts';
import { openStage, type Stage } from './stage.ts';

const component = (path: string): string =>
  fileURLToPath(new URL(`../components/node_modules/${path}`, import.meta.url));
const CODEX = component('codex-linux-x64/vendor/x86_64-unknown-linux-musl/bin/codex');
const GEMINI = component('@google/gemini-cli/bundle/gemini.js');

const MESSAGE = 'echo: sent by a client';
const SEND = { name: 'send', input: { instance: 'worker', message: MESSAGE } };

let temp: TempDir;
let stage: Stage;
let opencode: Opencode;
let codex: ClientModel;
let gemini: ClientModel;
let namespaces: NamespaceSet;
let namespace: string;
let ports: readonly ForwardedPort[];

/** Clients look for updates and report home: each runs where only its model and the instance are. */
async function run(command: readonly string[], env: Readonly<Record<string, string>>): Promise<string> {
  const child = spawnIn(namespace, command, {
    cwd: temp.path,
    env: { PATH: '/usr/bin:/bin', HOME: temp.path, TMPDIR: temp.tmp, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  if (child.stdout === null || child.stderr === null) throw new Error('Expected pipes');
  const ended = once(child, 'exit');
  const [stdout, stderr, [code]] = await Promise.all([text(child.stdout), text(child.stderr), ended]);
  if (code !== 0) throw new Error(`${command[0]} ended with ${code}:\n${stdout}\n${stderr}`);
  return stdout;
}

describe.skipIf([CODEX, GEMINI].some(isMissing) || process.getuid?.() !== 0)('a turn of a client whose model', () => {
  beforeAll(async () => {
    temp = tempDir('client-turns');
    stage = await openStage();
    [opencode, codex, gemini] = await Promise.all([stage.opencode(), startCodexModel(SEND), startGeminiModel(SEND)]);
    await stage.register('worker', opencode);
    namespaces = await NamespaceSet.open('clients');
    namespace = await namespaces.add('home');
    const wanted = [codex.port, gemini.port, opencode.port];
    ports = await Promise.all(wanted.map((port) => forwardInto(namespace, port, port)));
    const server = {
      command: process.execPath,
      args: [SERVER_SCRIPT, '--registry-dir', stage.registry.path, '--health-timeout-ms', '15000'],
      env: NO_MULTICAST,
    };
    await Promise.all(['.codex', '.gemini'].map((folder) => mkdir(join(temp.path, folder))));
    const [name] = Object.keys(NO_MULTICAST);
    const toml = [
      'model = "scripted"',
      'model_provider = "here"',
      '[model_providers.here]',
      'name = "here"',
      `base_url = "${codex.url}/v1"`,
      'wire_api = "responses"',
      '[mcp_servers.opencode]',
      `command = ${JSON.stringify(server.command)}`,
      `args = ${JSON.stringify(server.args)}`,
      `env = { ${name} = ${JSON.stringify(Object.values(server.env)[0])} }`,
      'startup_timeout_sec = 60',
    ];
    await writeFile(join(temp.path, '.codex/config.toml'), toml.join('\n'));
    await writeFile(
      join(temp.path, '.gemini/settings.json'),
      JSON.stringify({
        security: { auth: { selectedType: 'gemini-api-key' }, folderTrust: { enabled: false } },
        privacy: { usageStatisticsEnabled: false },
        mcpServers: { opencode: { ...server, trust: true } },
      }),
    );
  });
  afterAll(async () => {
    await endProcessesIn(temp.tmp);
    for (const port of ports) port.close();
    await namespaces.close();
    await Promise.all([codex[Symbol.asyncDispose](), gemini[Symbol.asyncDispose]()]);
    await stage.close();
    await temp.close();
  });

  test('Codex runs: sends to an opencode and gets its answer', async () => {
    process.stdout.write(await run([CODEX, '--version'], {}));
    const flags = ['--skip-git-repo-check', '--dangerously-bypass-approvals-and-sandbox'];
    expect(await run([CODEX, 'exec', ...flags, 'Ask the worker.'], {})).toContain(expectedReply(MESSAGE));
  });

  test('Gemini CLI runs: sends to an opencode and gets its answer', async () => {
    const env = { GEMINI_API_KEY: 'scripted', GOOGLE_GEMINI_BASE_URL: gemini.url };
    process.stdout.write(`gemini ${await run([process.execPath, GEMINI, '--version'], env)}`);
    const flags = ['--yolo', '--model', 'gemini-2.5-flash', '--prompt', 'Ask the worker.'];
    expect(await run([process.execPath, GEMINI, ...flags], env)).toContain(expectedReply(MESSAGE));
  });
});
