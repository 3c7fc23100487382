import type { Clock } from '../../base/clock.ts';
import type { PageCaller, PageView } from '../contract.ts';
import type { FleetFeed } from './fleet-feed.ts';
import { fleetState } from './fleet-state.ts';
import type { LineStream } from '../line-stream.ts';

/** Between two looks at what is known; a look at an unchanged snapshot costs nothing. */
const LOOK_MS = 50;
/** An empty page says something else; but one instance that hangs does not keep the others back. */
const FIRST_LOOK_MS = 1_000;
/** At most four lines a second. */
const LINE_MS = 250;

/** Sends the whole state, and again at every change, until `signal` aborts. */
export async function streamFleet(
  stream: LineStream,
  { feed, clock, signal }: { readonly feed: FleetFeed; readonly clock: Clock; readonly signal: AbortSignal },
  caller: PageCaller,
  view: PageView,
): Promise<void> {
  const leave = feed.look();
  const you = { name: caller.name, role: caller.role, all: view.all };
  let shown: FleetFeed['now'] | undefined;
  let last = '';
  try {
    await Promise.race([view.runtime.fleet.ready(), clock.sleep(FIRST_LOOK_MS, signal)]);
    while (!signal.aborted) {
      const { now } = feed;
      const isSame = shown?.snapshot === now.snapshot && shown.version === now.version;
      shown = now;
      const state = isSame ? undefined : fleetState(now.snapshot, caller, feed);
      const text = state === undefined ? last : JSON.stringify(state);
      if (state !== undefined && text !== last) {
        last = text;
        await stream.send([{ at: clock.now(), you, ...state }]);
        await clock.sleep(LINE_MS, signal);
      } else await clock.sleep(LOOK_MS, signal);
    }
  } finally {
    leave();
  }
}
