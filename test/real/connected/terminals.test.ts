import { ElicitRequestSchema } from '@modelcontextprotocol/sdk/types.js';
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { ask, openTerminalStage, type TerminalStage, WRAPPER } from '../../connected/terminal-stage.ts';
import { endAll } from '../../connected/wrapper-stage.ts';
import type { McpChild, ToolCall } from '../../rig/programs/mcp-child.ts';
import { toolReply } from '../../rig/model/model-script.ts';
import { isSkipped, missingProgram } from '../../rig/needed.ts';
import { isMissing, PINNED_OPENCODE } from '../../rig/opencode/opencode-binaries.ts';
import { openTmux, type TmuxTerminal } from '../../rig/programs/tmux.ts';
import { until } from '../../rig/wait.ts';
import { openStage, type Stage } from '../stage.ts';

const READY = /Ask anything/;
const ANNOUNCED = /A message was sent to session/;
const isMissingHere = isMissing(PINNED_OPENCODE) || isSkipped(missingProgram('tmux', '-V'));
const data = ({ result }: ToolCall): Record<string, unknown> => result.structuredContent ?? {};

describe.skipIf(isMissingHere)('two terminals in a directory, and a client', () => {
  let stage: Stage;
  let first: TerminalStage;
  let second: TerminalStage;
  let one: TmuxTerminal;
  let other: TmuxTerminal;
  let settings: string;
  let server: McpChild;
  let isAsked = false;
  let isTakenAway = false;

  beforeAll(async () => {
    stage = await openStage();
    const registry = stage.registry.path;
    const { model } = stage;
    first = await openTerminalStage({ model, registry, env: { INSTANCE_NAME: 'one' } });
    const { home, directory } = first.sandbox;
    second = await openTerminalStage({ model, registry, home, directory, env: { INSTANCE_NAME: 'other' } });
    ({ terminal: one } = first);
    ({ terminal: other } = second);
    settings = await ask(one, 'stty -a');
    for (const terminal of [one, other]) {
      await terminal.type(`clear; ${WRAPPER}; echo "code=$?"`, 'Enter');
      await terminal.shows(READY);
    }
    server = await stage.server({
      clientInfo: { name: 'claude-code', version: '2.1.329' },
      capabilities: { elicitation: { form: {} } },
      prepare: (client) =>
        client.setRequestHandler(ElicitRequestSchema, (_, { signal }) => {
          isAsked = true;
          signal.addEventListener('abort', () => (isTakenAway = true));
          return new Promise(() => {});
        }),
    });
  });
  afterAll(async () => {
    await endAll();
    await stage?.close();
  });

  test('a message to one instance is announced in the terminal that has the session open', async () => {
    await one.type('echo: typed here', 'Enter');
    await one.shows(/Build · Scripted model · /);
    const announced = one.shows(ANNOUNCED);
    const sent = await server.call('send', { instance: 'other', message: 'echo: from a client' });
    expect(data(sent)).toMatchObject({ outcome: 'completed', also_open_in: ['one'] });
    await announced;
    expect(await other.screen()).not.toMatch(ANNOUNCED);
    await until('the toast to go', async () => !ANNOUNCED.test(await one.screen()));
    // As the message warns, opening the session again there shows nothing (1.18.33).
    expect(await one.screen()).not.toContain('from a client');
    await using again = await openTmux(first.sandbox.env, first.sandbox.directory);
    await again.type(`${resolve(PINNED_OPENCODE)} -c`, 'Enter');
    await again.shows(/echo: from a client/);
  });

  test('a person answers at the terminal while the client asks its user the same question', async () => {
    await one.type('bash: echo by hand', 'Enter');
    await one.shows(/Allow once/);
    // `wait` reaches the agent's question, and asks the client's person in the same call.
    const waiting = server.call('wait', {});
    await until('the client’s person to be asked', () => isAsked);
    await one.type('', 'Enter');
    expect(data(await waiting)).toMatchObject({
      turns: [
        {
          instance: 'one',
          outcome: 'completed',
          text: toolReply('bash', 'by hand'),
          settled: expect.stringMatching(/^settled elsewhere.*not by this call.*echo by hand/) as string,
        },
      ],
    });
    await until('the question to be taken away', () => isTakenAway);
    await one.shows(/bash returned: by hand/);
  });

  test('after a kill -9 of opencode, the terminal is restored and the exit code is opencode’s', async () => {
    await first.killOpencode();
    // The alternate screen is gone with its content.
    expect(await one.shows(/^code=137/m)).not.toMatch(READY);
    expect(await ask(one, 'stty -a')).toBe(settings);
    await one.type('echo typed$((1+1))', 'Enter');
    await one.shows(/^typed2$/m);
  });

  test('closing the terminal ends everything', async () => {
    expect(JSON.parse(await readFile(await second.registered(), 'utf8'))).toMatchObject({ name: 'other' });
    await other.close();
    await second.nothingLeft();
  });
});
