import { spawnSync } from 'node:child_process';
import { stat } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';

import { afterEach, expect, test } from 'vitest';

import { atEnd, endAll, folder, nothingLeft, startWrapper } from '../../connected/wrapper-stage.ts';
import { CONNECTED_SCRIPT } from '../../rig/programs/connected-child.ts';
import { startMcpChild } from '../../rig/programs/mcp-child.ts';
import { isMissing, PINNED_OPENCODE } from '../../rig/opencode/opencode-binaries.ts';
import { createProject } from '../../rig/opencode/opencode-sandbox.ts';
import { startScriptedModel } from '../../rig/model/scripted-model.ts';

afterEach(endAll);

test.skipIf(isMissing(PINNED_OPENCODE))(
  'opencode-connected --headless registers an opencode in any directory behind a password; a server drives it, and SIGINT withdraws everything',
  async () => {
    const model = await startScriptedModel();
    atEnd(() => model.close());
    const directory = join(folder().path, '-n it\'s "quoted" $(touch pwned) `id`, Ünïcödé 目录 🦊,\ntwo lines');
    await createProject(directory);
    const child = await startWrapper({ directory, model });
    const { id, name, port, ...registered } = await child.registered();
    expect(registered).toMatchObject({ protocol: 1, cwd: directory, hostname: hostname(), localPort: port });
    expect(port).toBeGreaterThanOrEqual(4096);
    expect(port).toBeLessThanOrEqual(5095);
    expect(JSON.stringify(registered)).not.toContain(await child.password());
    expect((await fetch(`http://127.0.0.1:${port}/global/health`)).status).toBe(401);
    const credentials = join(child.registry, '.credentials');
    const modes = await Promise.all([child.registry, credentials, join(credentials, id)].map((path) => stat(path)));
    expect(modes.map(({ mode }) => mode & 0o777)).toEqual([0o700, 0o700, 0o600]);

    await using server = await startMcpChild({
      // A client without a short request timeout, since a cold opencode on a busy machine is slow.
      clientInfo: { name: 'claude-code', version: '2.1.329' },
      args: ['--registry-dir', child.registry, '--health-timeout-ms', '15000'],
      env: { HOME: child.env['HOME'] ?? '' },
    });
    const { result } = await server.call('instances');
    expect(result.structuredContent).toMatchObject({ instances: [{ name, state: 'idle' }] });
    const sent = await server.call('send', { instance: name, message: 'echo: from the wrapper' });
    expect(sent.result.structuredContent).toMatchObject({ outcome: 'completed', text: 'from the wrapper' });

    const report = (subcommand: string): unknown => {
      const { env } = child;
      const args = [CONNECTED_SCRIPT, subcommand, '--json'];
      const { status, stdout, stderr } = spawnSync(process.execPath, args, { env, cwd: directory, encoding: 'utf8' });
      expect(status, stderr).toBe(0);
      return JSON.parse(stdout);
    };
    expect(report('status')).toMatchObject({
      here: { instances: [{ name, state: 'idle', answer: { state: 'healthy' } }] },
      wrappers: [{ name, pid: child.pid }],
    });
    expect(report('sessions')).toMatchObject({ sessions: [{ state: 'idle', instances: [name] }], missing: [] });

    child.kill('SIGINT');
    // opencode decides how it ends on a signal, and the wrapper ends in the same way.
    expect([
      { code: 0, signal: null },
      { code: null, signal: 'SIGINT' },
    ]).toContainEqual(await child.exited);
    await nothingLeft(child);
  },
);
