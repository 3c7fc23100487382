import { openStream, StreamTap } from '../opencode/event-tap.ts';

/** One event of an OpenCode 2 server, of any dialect. */
export interface ServerEvent {
  readonly id: string;
  readonly type: string;
  readonly location?: { readonly directory: string };
  readonly durable?: { readonly aggregateID: string; readonly seq: number; readonly version: number };
  readonly data: { readonly sessionID?: string; readonly [key: string]: unknown };
}

/** The events of an OpenCode 2. */
export class ServerEventTap extends StreamTap<ServerEvent> {
  /** The events of one session so far. */
  of(sessionID: string): readonly ServerEvent[] {
    return this.events.filter(({ data }) => data.sessionID === sessionID);
  }

  /** Resolves with the first past or future event of this type that `where` accepts. */
  waitFor(type: string, where: (event: ServerEvent) => boolean = () => true): Promise<ServerEvent> {
    return this.first(type, (event) => event.type === type && where(event));
  }
}

/** Subscribes to `/api/event`. */
export async function tapServerEvents(server: {
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
}): Promise<ServerEventTap> {
  const stream = await openStream(new URL('/api/event', server.url), server.headers);
  return new ServerEventTap(stream, (data) => data as ServerEvent);
}
