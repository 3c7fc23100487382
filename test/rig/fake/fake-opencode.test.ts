import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { announce } from '../announce.ts';
import { tapEvents } from '../opencode/event-tap.ts';
import { startFakeOpencode, type FakeOpencode } from './fake-opencode.ts';
import { isMissing, PINNED_OPENCODE } from '../opencode/opencode-binaries.ts';
import { startOpencode, type Opencode } from '../opencode/opencode.ts';
import { startScriptedModel, type ScriptedModel } from '../model/scripted-model.ts';

/** The paths of all fields with the types of their values; a list counts as its first element. */
function shape(value: unknown, path = ''): string[] {
  if (Array.isArray(value)) return shape(value[0], `${path}[]`);
  if (typeof value !== 'object' || value === null) return [`${path}: ${typeof value}`];
  return Object.entries(value)
    .flatMap(([name, field]) => shape(field, `${path}.${name}`))
    .toSorted();
}

/** The fake behaves like a real opencode: their answers and events have the same shape. */
describe.skipIf(isMissing(PINNED_OPENCODE))('the fake of OpenCode 1', () => {
  let model: ScriptedModel;
  let real: Opencode;
  let fake: FakeOpencode;

  beforeAll(async () => {
    model = await startScriptedModel();
    real = await startOpencode({ model });
    fake = await startFakeOpencode({ directory: real.directory, reply: (text) => text.replace('echo: ', '') });
    announce(real);
  });
  afterAll(async () => {
    await fake?.close();
    await real?.close();
    await model?.close();
  });

  const ask = (server: { readonly url: string }, method: string, path: string, body?: object): Promise<Response> =>
    fetch(server.url + path, {
      method,
      headers: { 'content-type': 'application/json' },
      ...(body && { body: JSON.stringify(body) }),
    });
  const createSession = async (server: { readonly url: string }): Promise<string> => {
    const { id } = (await (await ask(server, 'POST', '/session', { title: 'A session' })).json()) as { id: string };
    return id;
  };
  const prompt = async (server: { readonly url: string }, session: string, text: string): Promise<void> => {
    const body = { parts: [{ type: 'text', text }] };
    expect((await ask(server, 'POST', `/session/${session}/prompt_async`, body)).status).toBe(204);
  };

  it('answers like a real opencode', async () => {
    await Promise.all([real, fake].map(createSession));
    for (const path of [
      '/global/health',
      '/path',
      '/session?roots=true&limit=1',
      '/session/status',
      '/permission',
      '/session/ses_000000000000AAAAAAAAAAAAAA',
      '/nosuch',
    ]) {
      const [ofFake, ofReal] = await Promise.all([fake, real].map((server) => ask(server, 'GET', path)));
      const type = ofFake?.headers.get('content-type');
      expect([path, ofFake?.status, type]).toEqual([path, ofReal?.status, ofReal?.headers.get('content-type')]);
      if (type?.includes('json')) expect(shape(await ofFake?.json())).toEqual(shape(await ofReal?.json()));
    }
  });

  it('sends the events of a turn in the order of a real opencode', async () => {
    const turns = [];
    for (const server of [fake, real]) {
      const session = await createSession(server);
      await using tap = await tapEvents(server);
      await prompt(server, session, 'echo: hello');
      const delta = await tap.waitFor('message.part.delta');
      await tap.waitFor('session.idle', ({ sessionID }) => sessionID === session);
      turns.push({ types: tap.types, delta: shape(delta) });
    }
    const [ofFake, ofReal] = turns;
    expect(ofFake?.delta).toEqual(ofReal?.delta);
    // The real one sends more events.
    let next = 0;
    for (const type of ofFake?.types ?? []) {
      const found = ofReal?.types.indexOf(type, next) ?? -1;
      expect(found, `${type} from ${next} on in ${ofReal?.types.join()}`).toBeGreaterThanOrEqual(next);
      next = found + 1;
    }
  });

  it('lists permissions and questions like a real opencode', async () => {
    await using tap = await tapEvents(real);
    const session = await createSession(real);
    await prompt(real, session, 'bash: ls');
    await tap.waitFor('permission.asked');
    const sessionID = await createSession(fake);
    fake.addPermission({ sessionID, tool: { messageID: 'msg_x', callID: 'call_x' } });
    const list = async (server: { readonly url: string }, path: string): Promise<string[]> =>
      shape(await (await ask(server, 'GET', path)).json());
    expect(await list(fake, '/permission')).toEqual(await list(real, '/permission'));
    const other = await createSession(real);
    await prompt(real, other, 'ask: Which colour?|Red|Blue');
    await tap.waitFor('question.asked');
    fake.addQuestion({ sessionID });
    expect(await list(real, '/question')).toEqual(expect.arrayContaining(await list(fake, '/question')));
  });
});
