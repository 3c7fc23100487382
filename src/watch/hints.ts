import { runs, type WatchedSession } from '../model/watched.ts';
import type { ServerEvent } from '../opencode/events.ts';
import type { Urgency } from './survey-pace.ts';

/** An agent's requests and the answers to them, of both generations. OpenCode 2's answers come as `session.touched`. */
const REQUEST = /^(?:permission|question)\.(?:asked|replied|rejected)$/;

/**
 * How soon an event calls for a survey of its server. Undefined if it shows nothing new, as with most of the hundreds of events per second
 * of a streaming turn.
 *
 * @param known the event's session, if it is known
 * @param isAsking a survey is under way, whose answers may be older than the event
 */
export function hintIn(
  { type, properties }: ServerEvent,
  known: WatchedSession | undefined,
  isAsking: boolean,
): Urgency | undefined {
  const isRunning = known !== undefined && runs(known);
  switch (type) {
    case 'session.status': {
      const status = statusIn(properties);
      if (status === 'idle') return isRunning || isAsking ? 'now' : undefined;
      return status === 'busy' && known?.state === 'busy' && !isAsking ? undefined : 'now';
    }
    case 'session.idle':
      return isRunning || isAsking ? 'now' : undefined;
    case 'session.error':
      return 'now';
    case 'prompt.taken':
      return isRunning && !isAsking ? undefined : 'now';
    case 'session.touched':
      if (known?.state === 'waiting') return 'now';
      return known?.state === 'busy' ? undefined : 'soon';
    case 'session.updated':
      return titleIn(properties) === known?.title ? undefined : 'soon';
    case 'session.created':
    case 'session.deleted':
      return isRunning ? 'now' : 'soon';
    default:
      return REQUEST.test(type) ? 'now' : undefined;
  }
}

/** The session that an event is about; empty if none. */
export function sessionIn({ properties: { sessionID, info, part } }: ServerEvent): string {
  const id = sessionID ?? fields(part)['sessionID'] ?? fields(info)['sessionID'] ?? fields(info)['id'];
  return typeof id === 'string' ? id : '';
}

/** Whether its session began to run, failed or was deleted. Such a session is looked up even if no survey sees it run. */
export function isEpoch({ type, properties }: ServerEvent): boolean {
  if (type === 'session.status') return statusIn(properties) !== 'idle';
  return type === 'prompt.taken' || type === 'session.error' || type === 'session.deleted';
}

export function isRetry({ type, properties }: ServerEvent): boolean {
  return type === 'session.status' && statusIn(properties) === 'retry';
}

function statusIn({ status }: ServerEvent['properties']): unknown {
  return fields(status)['type'];
}

function titleIn({ info }: ServerEvent['properties']): unknown {
  return fields(info)['title'];
}

function fields(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? (value as Readonly<Record<string, unknown>>) : {};
}
