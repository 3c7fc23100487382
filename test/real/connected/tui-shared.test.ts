import { resolve } from 'node:path';

import { expect, test } from 'vitest';

import { isMissing, PINNED_OPENCODE } from '../../rig/opencode-binaries.ts';
import { openSandbox } from '../../rig/opencode-sandbox.ts';
import { freePort } from '../../rig/ports.ts';
import { needTmux, openTmux } from '../../rig/tmux.ts';
import { until } from '../../rig/wait.ts';
import { openStage } from '../stage.ts';

const TOLD = /A message was sent to session/;

test.skipIf(isMissing(PINNED_OPENCODE))(
  'a message to one of two terminals in a directory is announced in the terminal that has the session open',
  async (context) => {
    needTmux(context);
    await using stage = await openStage();
    await using sandbox = await openSandbox({ model: stage.model });
    const ports = [await freePort(), await freePort()] as const;
    await using one = await openTmux(sandbox.env, sandbox.directory);
    await using other = await openTmux(sandbox.env, sandbox.directory);
    for (const [index, terminal] of [one, other].entries()) {
      await terminal.type(`${resolve(PINNED_OPENCODE)} --port ${ports[index]}`, 'Enter');
      await terminal.shows(/Ask anything/);
      await stage.registry.add({
        name: index === 0 ? 'one' : 'other',
        port: ports[index] ?? 0,
        localPort: ports[index] ?? 0,
        cwd: sandbox.directory,
        hostname: 'test-host',
      });
    }
    const server = await stage.server();
    await one.type('echo: typed here', 'Enter');
    await one.shows(/Build · Scripted model · /);
    const told = one.shows(TOLD);
    const sent = await server.call('send', { instance: 'other', message: 'echo: from a client' });
    expect(sent.result.structuredContent).toMatchObject({ outcome: 'completed', also_open_in: ['one'] });
    await told;
    expect(await other.screen()).not.toMatch(TOLD);
    await until('the toast to go', async () => !TOLD.test(await one.screen()));
    // As the message warns, opening the session again there shows nothing (1.18.33).
    expect(await one.screen()).not.toContain('from a client');
    await using again = await openTmux(sandbox.env, sandbox.directory);
    await again.type(`${resolve(PINNED_OPENCODE)} -c`, 'Enter');
    await again.shows(/echo: from a client/);
  },
);
