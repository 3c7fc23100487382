import type { McpChild, ToolCall } from '../rig/mcp-child.ts';
import type { TailnetMachine } from '../rig/tailnet.ts';
import { until } from '../rig/wait.ts';

/** Resolves when a port of one machine can be reached from another: finding the way takes seconds. */
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
  /** 0: there was none. */
  readonly status: number;
  /** The body, or the error's code. */
  readonly text: string;
}

/** Not with `fetch`, which sends a Host of its own. */
const REQUEST = `const [url, init] = process.argv.slice(1);
const { body, ...options } = JSON.parse(init);
const tell = (status, text) => console.log(JSON.stringify({ status, text }));
const failed = (error) => tell(0, error.code ?? String(error));
const request = require('node:http').request(url, { ...options, signal: AbortSignal.timeout(20000) }, async (response) => {
  let text = '';
  try {
    for await (const chunk of response.setEncoding('utf8')) text += chunk;
    tell(response.statusCode, text);
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

/** What a tool returned as structure. */
export function data({ result }: ToolCall): Record<string, unknown> {
  return result.structuredContent ?? {};
}

/** The instances as they stand (`list_instances`: nothing is asked), or as they are now (`instances`). */
export async function rows(
  server: McpChild,
  tool: 'list_instances' | 'instances' = 'list_instances',
): Promise<readonly Row[]> {
  return data(await server.call(tool))['instances'] as readonly Row[];
}

/** Resolves with the instance of that name once a server lists it and `isIt`. */
export async function listed(server: McpChild, name: string, isIt: (row: Row) => boolean = isUp): Promise<Row> {
  let last: readonly Row[] = [];
  return until(`${name} to be listed`, async () => {
    last = await rows(server);
    return last.find((row) => row.name === name && isIt(row));
  }).catch(async (error: unknown) => {
    const { text } = await server.call('instances');
    throw new Error(`listed: ${JSON.stringify(last)}; asked anew:\n${text}`, { cause: error });
  });
}

function isUp({ state }: Row): boolean {
  return state === 'idle' || state === 'busy';
}
