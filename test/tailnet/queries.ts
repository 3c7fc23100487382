import { expect } from 'vitest';

import type { McpChild, ToolCall } from '../rig/programs/mcp-child.ts';
import { expectedReply } from '../rig/model/model-script.ts';
import type { ScriptedModel } from '../rig/model/scripted-model.ts';
import type { TailnetMachine } from '../rig/network/tailnet.ts';
import { until } from '../rig/wait.ts';

/** Resolves when one machine can reach a port of another, which takes seconds. */
export function connects(from: TailnetMachine, to: TailnetMachine, port: number): Promise<boolean> {
  return until(`${from.name} to reach port ${port} of ${to.name}`, () =>
    from.localApi.dial(to.ip4 || to.ip6, port).then(
      (stream) => {
        stream.destroy();
        return true;
      },
      () => false,
    ),
  );
}

interface RequestInit {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
}

export interface Answer {
  /** The HTTP status, or 0 without an answer. */
  readonly status: number;
  /** The body, or the error's code. */
  readonly text: string;
}

/** Does not use `fetch`, which sets its own Host. */
const REQUEST = `const [url, init] = process.argv.slice(1);
const { body, ...options } = JSON.parse(init);
const print = (status, text) => console.log(JSON.stringify({ status, text }));
const failed = (error) => print(0, error.code ?? String(error));
const request = require('node:http').request(url, { ...options, signal: AbortSignal.timeout(20000) }, async (response) => {
  let text = '';
  try {
    for await (const chunk of response.setEncoding('utf8')) text += chunk;
    print(response.statusCode, text);
  } catch (error) {
    failed(error);
  }
});
request.once('error', failed).end(body);`;

/** One request by a process on a machine. */
export async function request(from: TailnetMachine, url: string, init: RequestInit = {}): Promise<Answer> {
  const answer: Answer = JSON.parse(await from.exec([process.execPath, '-e', REQUEST, url, JSON.stringify(init)]));
  return answer;
}

export interface Row {
  readonly name: string;
  readonly host: string;
  readonly state: string;
  readonly reason?: string;
  readonly directory?: string;
  readonly via: string;
  readonly waiting?: readonly string[];
  readonly last_seen?: string;
}

/** The recipient of messages. */
export interface Recipient {
  readonly server: McpChild;
  readonly model: ScriptedModel;
  readonly instance: string;
}

/** Sends a message, which one turn answers completely. */
export async function answers({ server, model, instance }: Recipient, message: string): Promise<void> {
  const sent = await server.call('send', { instance, message });
  expect(data(sent), sent.text).toMatchObject({ outcome: 'completed', text: expectedReply(message) });
  expect(model.turns(message)).toBe(1);
}

/** Sends a message whose answer is streamed. `meanwhile` runs between the halves of the answer. */
export async function streams(
  { server, model, instance }: Recipient,
  gate: string,
  meanwhile: () => Promise<unknown> = () => Promise.resolve(),
): Promise<void> {
  const half = `the first half of ${gate},`;
  const message = `gate-mid ${gate}: ${half} |and the second`;
  let seen = '';
  const onProgress = ({ message: part = '' }): void => void (seen += part);
  const sending = server.call('send', { instance, message }, { onProgress });
  const early = await Promise.race([model.waitForGate(gate), sending]);
  expect(early?.text, 'the send ended before the model was asked').toBeUndefined();
  await until('the first half', () => seen.includes(half));
  await meanwhile();
  model.release(gate);
  const { result, progress, text } = await sending;
  expect(result.structuredContent, text).toMatchObject({ outcome: 'completed', text: expectedReply(message) });
  expect(text).toContain(expectedReply(message));
  expect(progress.map(({ message: part }) => part ?? '').join('')).toBe(expectedReply(message));
  expect(model.turns(message)).toBe(1);
}

/** A tool's structured result. */
export function data({ result }: ToolCall): Record<string, unknown> {
  return result.structuredContent ?? {};
}

/** Lists the instances as last probed (`list_instances`), or probes them now (`instances`). */
export async function rows(
  server: McpChild,
  tool: 'list_instances' | 'instances' = 'list_instances',
): Promise<readonly Row[]> {
  return data(await server.call(tool))['instances'] as readonly Row[];
}

/** Resolves with the row of that name once a server lists it and `isIt` accepts it. */
export async function listed(server: McpChild, name: string, isIt: (row: Row) => boolean = isUp): Promise<Row> {
  let last: readonly Row[] = [];
  return until(`${name} to be listed`, async () => {
    last = await rows(server);
    return last.find((row) => row.name === name && isIt(row));
  }).catch(async (error: unknown) => {
    const { text } = await server.call('instances');
    throw new Error(`listed: ${JSON.stringify(last)}; probed now:\n${text}`, { cause: error });
  });
}

function isUp({ state }: Row): boolean {
  return state === 'idle' || state === 'busy';
}
