import * as z from 'zod';

import type { ReaderWords } from '../../model/advice.ts';
import { UnreachableError } from '../../fleet/fleet.ts';
import type { Instance } from '../../model/instance.ts';
import type { Session } from '../../opencode/schema.ts';
import { checkOpen } from '../../turns/call-limit.ts';
import { followSent } from '../../turns/turn.ts';
import { type Answer, OperationError, quoteName } from '../answer.ts';
import { askInTurn } from '../respond/ask-in-turn.ts';
import { type Call, connectTo, type Connected, limitOf, type Runtime } from '../runtime.ts';
import { findSession } from '../sessions/session-query.ts';
import type { TurnView } from '../shapes.ts';
import { followOn, followRequest } from './following.ts';
import { requestKey } from './request-journal.ts';
import { failed, shareOf, together } from './several.ts';
import { turnAnswer } from './turn-view.ts';
import { reportUndone } from './undone.ts';

export const begunSchema = z.object({
  /** Its name then. */
  instance: z.string(),
  identities: z.array(z.string()),
  sessionId: z.string(),
  /** Absent if the call answered a request instead. */
  messageId: z.string().optional(),
});
/** Finds what a call has begun on one instance, also from another process. */
export type Begun = z.infer<typeof begunSchema>;

export function begunOn(
  connected: Pick<Connected, 'instance' | 'directory'>,
  { id: sessionId }: Pick<Session, 'id'>,
  messageId?: string,
): Begun {
  const { identities } = requestKey(connected, '', undefined);
  return {
    instance: connected.instance.name,
    identities: [...identities],
    sessionId,
    ...(messageId !== undefined && { messageId }),
  };
}

/**
 * Follows what an ended process began; sends nothing. `named` has the names in a call to several instances, of which it may not
 * have reached all.
 */
export async function resume(
  runtime: Runtime,
  { begun, named }: { readonly begun: readonly Begun[]; readonly named: readonly string[] },
  call: Call,
): Promise<Answer<TurnView>> {
  const [only] = begun;
  if (only === undefined)
    throw new OperationError(
      'The server ended before it sent the message; nothing was sent. Call again if it is still wanted.',
    );
  const unsent = Math.max(0, named.length - begun.length);
  if (begun.length === 1 && unsent === 0) return await resumeOne(runtime, only, call);
  const maxChars = shareOf(begun.length);
  const answers = begun.map((one) =>
    resumeOne(runtime, one, call, maxChars).catch((error: unknown) => failed(one.instance, error, runtime.words)),
  );
  const rest = unsent === 0 ? [] : [notSent(named, begun, runtime.words)];
  return together([...(await Promise.all(answers)), ...rest]);
}

function notSent(named: readonly string[], begun: readonly Begun[], words: ReaderWords): Answer<TurnView> {
  const sent = begun.map(({ instance }) => quoteName(instance)).join(', ');
  const reason = `The server ended before it had sent the message to all of these: only ${sent} got it. Send it to the rest if it is still wanted.`;
  return failed(named.join(', '), new OperationError(reason), words);
}

async function resumeOne(runtime: Runtime, begun: Begun, call: Call, maxChars?: number): Promise<Answer<TurnView>> {
  return await reportUndone(
    begun.instance,
    'it is unknown what became of the message',
    async () => {
      const connected = await whenThere(runtime, begun, call);
      const session = await findSession(connected, begun.sessionId);
      const { onWaiting, settled } = askInTurn(runtime, connected, session, call);
      const { instance, api } = connected;
      const request = { ...followRequest(instance, session, call), onWaiting };
      const { messageId } = begun;
      const result =
        messageId === undefined
          ? await followOn(runtime, connected, session, call, { onWaiting })
          : await followSent(messageId, request, { api, clock: runtime.clock });
      if (result === undefined)
        throw new OperationError(
          `${quoteName(instance.name)}: message ${messageId} is not in session ${session.id}: the server ended before it sent the message, or opencode has not taken it up yet. Look with read before you send it again.`,
        );
      const text = result.wholeText ?? result.text;
      const options = { runtime, settled, ...(maxChars !== undefined && { maxChars }) };
      return turnAnswer(instance.name, session, { ...result, text }, options);
    },
    'Look with read before you send it again.',
  );
}

/** Between attempts to reach an instance: a laptop may be asleep, and discovery has just begun. */
const LOOK_MS = 3_000;

/** @throws {CallOver} */
async function whenThere(runtime: Runtime, begun: Begun, call: Call): Promise<Connected> {
  const { fleet, clock } = runtime;
  await fleet.ready();
  for (;;) {
    const instance = knownAs(runtime, begun);
    try {
      if (instance !== undefined) return await connectTo(runtime, instance, call);
    } catch (error) {
      if (!(error instanceof UnreachableError)) throw error;
    }
    call.onActivity?.(begun.instance, 'cannot be reached now');
    checkOpen(limitOf(call), clock);
    await clock.sleep(LOOK_MS, call.signal);
  }
}

function knownAs({ fleet }: Runtime, { identities }: Begun): Instance | undefined {
  const { instances, resting } = fleet.snapshot();
  const isIt = (instance: Instance): boolean =>
    requestKey({ instance, directory: instance.directory ?? '' }, '', undefined).identities.some((one) =>
      identities.includes(one),
    );
  return [...instances, ...resting].find(isIt);
}
