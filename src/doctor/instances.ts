import { quoteName, singleLine } from '../base/plain-text.ts';
import type { Instance, InstanceState, ProbedEndpoint, Snapshot } from '../model/instance.ts';
import { formatAge } from '../operations/answer.ts';
import { adviceOn, type AdvicePlaces } from './endpoint-advice.ts';
import { endpointCheck, type Suspected, suspectedIn } from './endpoints.ts';
import { check, type Check, type CheckVerdict } from './report.ts';

const MAX_DIRECTORY_CHARS = 200;

const VERDICTS: Readonly<Record<InstanceState, CheckVerdict>> = {
  idle: 'ok',
  starting: 'ok',
  busy: 'ok',
  waiting: 'ok',
  interrupted: 'ok',
  retrying: 'warn',
  unknown: 'warn',
  locked: 'broken',
  offline: 'broken',
  unsupported: 'broken',
  untrusted: 'broken',
};

/** Every instance with each way to it. */
export function instanceChecks(snapshot: Snapshot, places: AdvicePlaces, nowMs: number): readonly Check[] {
  const suspected = suspectedIn(snapshot, nowMs);
  const ownNames = new Map(snapshot.instances.map(({ key, name }) => [key, name]));
  return snapshot.instances.map((instance) => {
    const own = instance.key === instance.server.key ? undefined : ownNames.get(instance.server.key);
    return instanceCheck(instance, { suspected, places, nowMs, ...(own !== undefined && { own }) });
  });
}

interface Looking {
  readonly suspected: Suspected;
  readonly places: AdvicePlaces;
  readonly nowMs: number;
  /** The name of the opencode that works in that other directory. */
  readonly own?: string;
}

function instanceCheck(instance: Instance, { suspected, places, nowMs, own }: Looking): Check {
  const { name, state, host, directory, reason, lastSeenMs, server } = instance;
  const [best] = server.endpoints;
  const isDown = VERDICTS[state] === 'broken';
  const parts = [
    // Why it is down stands with each way to it.
    isDown || reason === undefined ? state : `${state}: ${reason}`,
    state === 'offline' && lastSeenMs !== undefined ? `last seen ${formatAge(nowMs - lastSeenMs)} ago` : '',
    `host ${quoteName(host)}`,
    directory === undefined ? '' : quoteName(singleLine(directory, MAX_DIRECTORY_CHARS)),
    own === undefined ? '' : `the same opencode as ${quoteName(own)}`,
  ];
  const advised = adviceOn(best, instance, places);
  const adviceFor = (one: ProbedEndpoint): ReturnType<typeof adviceOn> =>
    isDown ? undefined : adviceOn(one, instance, places);
  const details =
    own === undefined
      ? server.endpoints.map((one) => endpointCheck(one, instance, { suspected, advice: adviceFor(one) }))
      : [];
  return check(VERDICTS[state], quoteName(name), parts.filter((part) => part !== '').join(' · '), {
    details,
    ...(isDown && advised && { advice: advised }),
  });
}

export { type AdvicePlaces } from './endpoint-advice.ts';
