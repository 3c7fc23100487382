import type { Clock } from '../../base/clock.ts';
import type { PageCaller, PageView } from '../contract.ts';
import type { FleetFeed } from './fleet-feed.ts';
import { fleetState } from './fleet-state.ts';
import type { LineStream } from '../line-stream.ts';

/** How long to wait for the first round: an empty page would mislead, but one hanging instance must not hold back the others. */
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
  const leave = feed.open();
  const you = { name: caller.name, role: caller.role, all: view.all };
  let last = '';
  try {
    await Promise.race([view.runtime.fleet.ready(), clock.sleep(FIRST_LOOK_MS, signal)]);
    while (!signal.aborted) {
      const change = feed.changed(signal);
      const state = fleetState(view.runtime.fleet.snapshot(), caller, feed);
      const text = JSON.stringify(state);
      if (text !== last) {
        last = text;
        await stream.send([{ at: clock.now(), you, ...state }]);
        await clock.sleep(LINE_MS, signal);
      }
      await change;
    }
  } finally {
    leave();
  }
}
