import { CurrentEndpoint } from '../../attach/current-endpoint.ts';
import { systemClock } from '../../base/clock.ts';
import type { Refusal } from '../../node/access/request-guard.ts';
import type { ProxyTarget } from '../../node/proxy/exchange-proxy.ts';
import { findSession } from '../../operations/sessions/session-query.ts';
import { connect, type Connected } from '../../operations/runtime.ts';
import type { Session } from '../../opencode/schema.ts';
import { SHELL_WORDS } from './shell-words.ts';
import type { Shell } from './shell.ts';

/** A connected instance, with the session if one was named. */
export interface ShownTarget {
  readonly connected: Connected;
  readonly session: Session | undefined;
  /** The session's or the instance's; undefined if it is the server's own, which need not be named. */
  readonly directory: string | undefined;
}

/** Finds the target, and records this as a call of `tool`. */
export async function findTarget(
  shell: Shell,
  tool: string,
  input: { readonly instance: string; readonly session_id: string | undefined },
): Promise<ShownTarget> {
  const find = async (): Promise<ShownTarget> => {
    const connected = await connect(shell.runtime(), input.instance, shell.call());
    const session = input.session_id === undefined ? undefined : await findSession(connected, input.session_id);
    const directory = session?.directory ?? connected.directory;
    const isOwn = directory === '' || directory === connected.serverDirectory;
    return { connected, session, directory: isOwn ? undefined : directory };
  };
  const finding = find();
  await shell.recorded(tool, input, async () => {
    const { connected, session } = await finding;
    const data = { instance: connected.instance.name, ...(session !== undefined && { session: { id: session.id } }) };
    return { data, text: '' };
  });
  return await finding;
}

/** The endpoint that reaches its server now, or the reason that none does. */
export function endpointOf(shell: Shell, connected: Connected): () => Promise<ProxyTarget | Refusal> {
  const { fleet } = shell.runtime();
  const deps = { fleet, clock: systemClock, words: SHELL_WORDS, signal: shell.signal };
  const endpoint = new CurrentEndpoint(connected, deps);
  return async () => await endpoint.now();
}
