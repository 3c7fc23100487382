import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { announce } from '../rig/announce.ts';
import { tapEvents, type EventTap } from '../rig/event-tap.ts';
import { expectedReply, longText } from '../rig/model-script.ts';
import { isMissing, OPENCODES } from '../rig/opencode-binaries.ts';
import { startOpencode, type Opencode } from '../rig/opencode.ts';
import { processesIn } from '../rig/processes.ts';
import { createRealSession, type RealSession } from '../rig/real-session.ts';
import { SCRIPTED_TITLE, startScriptedModel, type ScriptedModel } from '../rig/scripted-model.ts';
import { until } from '../rig/wait.ts';

/** The rig itself, proven against the real program: what the other suites then rely on. */
describe.each(OPENCODES)('scripted model, $name', ({ binary }) => {
  const missing = isMissing(binary);
  let model: ScriptedModel;
  let opencode: Opencode;
  let tap: EventTap;

  beforeAll(async () => {
    if (missing) return;
    model = await startScriptedModel();
    opencode = await startOpencode({ model, binary });
    tap = await tapEvents(opencode);
    announce(opencode);
  });
  afterAll(async () => {
    await tap?.close();
    await opencode?.close();
    await model?.close();
  });

  const open = (title = 'rig'): Promise<RealSession> => createRealSession(opencode, title);
  const deltas = (session: RealSession): string[] =>
    tap.events.flatMap((event) =>
      event.type === 'message.part.delta' && event.properties.sessionID === session.id ? [event.properties.delta] : [],
    );

  it.skipIf(missing)('answers a turn once and titles apart from turns', async () => {
    const session = await createRealSession(opencode);
    await session.prompt('echo: title me please');
    const { text, last } = await session.settled();
    expect(text).toBe('title me please');
    expect(last.info.finish).toBe('stop');
    expect(model.turns('echo: title me please')).toBe(1);
    await tap.waitFor('session.updated', ({ info }) => info.id === session.id && info.title === SCRIPTED_TITLE);
    const titles = model.requests.filter(({ kind, sessionID }) => kind === 'title' && sessionID === session.id);
    expect(titles).toHaveLength(1);
  });

  it.skipIf(missing)('streams chunk by chunk', async () => {
    const session = await open();
    const script = 'slow 4 20: tick';
    await session.prompt(script);
    const { text } = await session.settled();
    await tap.waitFor('session.idle', ({ sessionID }) => sessionID === session.id);
    expect(text).toBe('tick 1 tick 2 tick 3 tick 4');
    expect(text).toBe(expectedReply(script));
    expect(deltas(session)).toEqual(['tick 1', ' tick 2', ' tick 3', ' tick 4']);
  });

  it.skipIf(missing)('gives a text of the length asked for', async () => {
    const session = await open();
    await session.prompt('long 70000');
    expect((await session.settled()).text).toBe(longText(70_000));
  });

  it.skipIf(missing)('calls bash, which asks, runs when allowed and comes back to the model', async () => {
    const session = await open();
    const script = 'bash: printf "from the shell"';
    await session.prompt(script);
    const asked = await tap.waitFor('permission.asked', ({ sessionID }) => sessionID === session.id);
    expect(asked.properties).toMatchObject({ permission: 'bash', metadata: { command: 'printf "from the shell"' } });
    expect(await opencode.json('GET', '/permission')).toEqual([asked.properties]);
    await opencode.json('POST', `/permission/${asked.properties.id}/reply`, { reply: 'once' });
    const { text, messages } = await session.settled();
    expect(text).toBe(expectedReply(script, 'from the shell'));
    expect(messages.map(({ info }) => info.finish)).toEqual([undefined, 'tool-calls', 'stop']);
    expect(model.turns(script)).toBe(1);
    expect(model.requests.filter(({ sessionID }) => sessionID === session.id).map(({ step }) => step)).toEqual([0, 1]);
    expect(await opencode.json('GET', '/permission')).toEqual([]);
  });

  it.skipIf(missing)('asks a question and learns the answer', async () => {
    const session = await open();
    await session.prompt('ask: Which colour?|Red|Blue');
    const asked = await tap.waitFor('question.asked', ({ sessionID }) => sessionID === session.id);
    expect(asked.properties.questions[0]?.options.map(({ label }) => label)).toEqual(['Red', 'Blue']);
    await opencode.json('POST', `/question/${asked.properties.id}/reply`, { answers: [['Blue']] });
    const { text } = await session.settled();
    expect(text).toContain('"Which colour?"="Blue"');
  });

  it.skipIf(missing)('starts a sub-agent that runs a script of its own', async () => {
    const session = await open();
    await session.prompt('task: echo: from the child');
    const { text } = await session.settled();
    expect(text).toContain('from the child');
    const child = await model.waitForTurn('echo: from the child');
    expect(child.sessionID).not.toBe(session.id);
    expect(await opencode.json('GET', `/session/${child.sessionID}`)).toMatchObject({ parentID: session.id });
  });

  it.skipIf(missing)('retries a 500 until it is aborted', async () => {
    const session = await open();
    await session.prompt('fail 500');
    await tap.waitFor('session.status', ({ sessionID, status }) => sessionID === session.id && status.type === 'retry');
    expect(await session.status()).toMatchObject({ type: 'retry', attempt: 1, message: 'scripted failure 500' });
    await session.abort();
    const { last } = await session.settled();
    // An abort between two attempts leaves no error behind.
    expect(last.info).not.toHaveProperty('error');
    expect(last.info.finish).toBeUndefined();
  });

  it.skipIf(missing)('recovers when the failures end', async () => {
    const session = await open();
    const script = 'fail-times 2 500: at last';
    await session.prompt(script);
    const { text } = await session.settled();
    expect(text).toBe('at last');
    expect(model.turns(script)).toBe(3);
  });

  it.skipIf(missing)('gives up on a 401', async () => {
    const session = await open();
    await session.prompt('fail 401');
    const error = await tap.waitFor('session.error', ({ sessionID }) => sessionID === session.id);
    expect(error.properties.error).toMatchObject({ name: 'APIError', data: { statusCode: 401 } });
    const { last } = await session.settled();
    expect(last.info.error).toMatchObject({ name: 'APIError', data: { message: 'scripted failure 401' } });
    expect(model.turns('fail 401')).toBe(1);
  });

  it.skipIf(missing)('hangs until released', async () => {
    const session = await open();
    await session.prompt('hang released-later');
    await model.waitForGate('released-later');
    expect(await session.status()).toEqual({ type: 'busy' });
    model.release('released-later');
    expect((await session.settled()).text).toBe('released');
  });

  it.skipIf(missing)('hangs until aborted, and the model sees the line drop', async () => {
    const session = await open();
    await session.prompt('hang never-released');
    await model.waitForGate('never-released');
    const request = await model.waitForTurn('hang never-released');
    await session.abort();
    const { last } = await session.settled();
    expect(last.info.error).toMatchObject({ name: 'MessageAbortedError' });
    await until('the model to see the line drop', () => request.aborted);
  });

  it.skipIf(missing)('thinks in a part of its own', async () => {
    const session = await open();
    await session.prompt('reason: First the thought|then the words');
    const { text, last } = await session.settled();
    expect(text).toBe('then the words');
    expect(last.parts.find(({ type }) => type === 'reasoning')?.text).toBe('First the thought');
  });

  it.skipIf(missing)('stops at a gate in mid-text, with the first half on the stream', async () => {
    const session = await open();
    await session.prompt('gate-mid half: first |second');
    const delta = await tap.waitFor('message.part.delta', ({ sessionID }) => sessionID === session.id);
    expect(delta.properties).toMatchObject({ field: 'text', delta: 'first ' });
    expect(await session.status()).toEqual({ type: 'busy' });
    model.release('half');
    expect((await session.settled()).text).toBe('first second');
  });

  it.skipIf(missing)('stops at a gate before any text', async () => {
    const session = await open();
    await session.prompt('gate whole: all of it');
    await model.waitForGate('whole');
    expect(deltas(session)).toEqual([]);
    model.release('whole');
    expect((await session.settled()).text).toBe('all of it');
  });

  it.skipIf(missing)("reads the person's words where opencode adds reminders of its own", async () => {
    const session = await open();
    await session.prompt('echo: planned', { agent: 'plan' });
    expect((await session.settled()).text).toBe('planned');
    await session.prompt('echo: built', { agent: 'build' });
    expect((await session.settled()).text).toBe('built');
  });

  it.skipIf(missing)('keeps what two prompts said apart when they are answered together', async () => {
    const session = await open();
    await session.prompt('gate together: one');
    await model.waitForGate('together');
    await session.prompt('echo: two');
    await session.prompt('echo: three');
    model.release('together');
    const turn = await model.waitForTurn('echo: three');
    expect(turn.userTexts).toEqual(['gate together: one', 'echo: two', 'echo: three']);
    expect(model.turns('echo: two')).toBe(0);
  });

  it.skipIf(missing)('closed, leaves no process behind', async () => {
    const session = await open();
    await session.prompt('bash: echo begun; exec sleep 600');
    const asked = await tap.waitFor('permission.asked', ({ sessionID }) => sessionID === session.id);
    await opencode.json('POST', `/permission/${asked.properties.id}/reply`, { reply: 'once' });
    await tap.waitFor(
      'message.part.updated',
      ({ part }) => part.type === 'tool' && JSON.stringify(part.state).includes('begun\\n'),
    );
    const folder = opencode.env['TMPDIR'] ?? '';
    expect(await processesIn(folder)).toHaveLength(2);
    await opencode.close();
    expect(await processesIn(folder)).toEqual([]);
  });
});

describe.each(OPENCODES)('a real opencode, $name', ({ binary }) => {
  const missing = isMissing(binary);

  it.skipIf(missing)(
    'keeps port, directories and sessions over a restart, and shares them with another of its home',
    async () => {
      await using opencode = await startOpencode({ binary, password: 'correct horse' });
      for (const path of ['/global/health', '/session', '/event'])
        expect((await fetch(opencode.url + path)).status).toBe(401);
      const { id } = await createRealSession(opencode, 'kept');
      const { url, pid, home, directory } = opencode;
      await using second = await startOpencode({ binary, home, directory });
      expect(await second.json('GET', `/session/${id}`)).toMatchObject({ id, title: 'kept' });
      await opencode.kill('SIGKILL');
      expect(opencode.running).toBe(false);
      await opencode.restart();
      expect(opencode.url).toBe(url);
      expect(opencode.pid).not.toBe(pid);
      expect(await opencode.json('GET', `/session/${id}`)).toMatchObject({ id, title: 'kept' });
      expect(await opencode.json('GET', '/path')).toMatchObject({ directory, home });
    },
  );
});
