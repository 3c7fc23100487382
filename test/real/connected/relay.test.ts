import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { afterEach, expect, test } from 'vitest';

import {
  atEnd,
  endAll,
  nothingLeft,
  nothingOnRelay,
  openRelay,
  sshOf,
  startWrapper,
  stateOf,
} from '../../connected/wrapper-stage.ts';
import { type ConnectedChild, filesIn } from '../../rig/programs/connected-child.ts';
import type { McpChild } from '../../rig/programs/mcp-child.ts';
import { expectedReply } from '../../rig/model/model-script.ts';
import { isMissing, PINNED_OPENCODE } from '../../rig/opencode/opencode-binaries.ts';
import { startScriptedModel } from '../../rig/model/scripted-model.ts';
import { needSshd } from '../../rig/network/sshd.ts';
import { deferred, until } from '../../rig/wait.ts';
import { listed, rows, serverOn } from './servers.ts';

afterEach(endAll);

test.skipIf(isMissing(PINNED_OPENCODE))(
  'an instance on a relay is listed there, answers through each new tunnel, and is not listed after a kill -9 of opencode',
  async (context) => {
    needSshd(context);
    const relay = await openRelay();
    const model = await startScriptedModel();
    atEnd(() => model.close());
    const child = await startWrapper({ model, env: relay.env });
    const { id } = await child.registered();
    const server = await serverOn(relay);
    const instance = await listed(server, child.directory);
    const relayRegistration = JSON.parse(await readFile(join(relay.registry, `${instance}.json`), 'utf8'));
    expect(relayRegistration).toMatchObject({ id, cwd: child.directory });
    expect(relayRegistration.port).not.toBe(relayRegistration.localPort);
    await expectWholeAnswerOverKilledSsh({ child, server, instance });

    const disruptions: Readonly<Record<string, () => Promise<unknown>>> = {
      "the relay's session is killed": () => relay.sshd.killSessions(),
      'sshd is restarted': () => relay.sshd.stop().then(() => relay.sshd.start()),
    };
    for (const [what, disrupt] of Object.entries(disruptions)) {
      const before = await sshOf(child);
      await disrupt();
      await sshOf(child, before);
      expect(await listed(server, child.directory), what).toBe(instance);
      const sent = await server.call('send', { instance, message: `echo: after ${what}` });
      expect(sent.result.structuredContent).toMatchObject({ outcome: 'completed', text: `after ${what}` });
      // One registration with its claim and password; no file of the previous connection is left.
      expect(await filesIn(relay.registry), what).toHaveLength(3);
    }

    process.kill((await stateOf(child)).opencodePid, 'SIGKILL');
    expect(await child.exited).toEqual({ code: null, signal: 'SIGKILL' });
    await nothingOnRelay(relay);
    await nothingLeft(child);
    await until('the relay to list nothing', async () =>
      (await rows(server)).every(({ state }) => state === 'offline'),
    );
  },
);

interface RelayInstance {
  readonly child: ConnectedChild;
  readonly server: McpChild;
  readonly instance: string;
}

/** The tunnel breaks during a turn and reconnects: the answer is complete, and the message was sent once. */
async function expectWholeAnswerOverKilledSsh({ child, server, instance }: RelayInstance): Promise<void> {
  const ssh = await sshOf(child);
  const begun = deferred<void>();
  const message = 'slow 12 300: Word by word. ';
  const sending = server.call(
    'send',
    { instance, message },
    { onProgress: ({ message: text }) => text?.includes('Word') && begun.resolve() },
  );
  await begun.promise;
  process.kill(ssh, 'SIGKILL');
  await sshOf(child, ssh);
  const { result } = await sending;
  expect(result.structuredContent).toMatchObject({ outcome: 'completed', text: expectedReply(message) });
  const read = await server.call('read', { instance, message_limit: 10 });
  const { messages } = read.result.structuredContent as { readonly messages: ReadonlyArray<{ readonly role: string }> };
  expect(messages.map(({ role }) => role)).toEqual(['user', 'assistant']);
}
