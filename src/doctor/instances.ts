import { quoteName, quoteShort } from '../base/plain-text.ts';
import type { Instance, InstanceState, ProbedEndpoint, Snapshot } from '../model/instance.ts';
import { formatAge } from '../operations/answer.ts';
import { adviceOn, type AdvicePlaces } from './endpoint-advice.ts';
import { endpointCheck, type Suspected, suspectedIn } from './endpoints.ts';
import { type Advice, check, type Check, type CheckVerdict } from './report.ts';

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

export function instanceChecks(snapshot: Snapshot, places: AdvicePlaces, nowMs: number): readonly Check[] {
  const suspected = suspectedIn(snapshot, nowMs);
  const ownNames = new Map(snapshot.instances.map(({ key, name }) => [key, name]));
  return snapshot.instances.map((instance) => {
    const own = instance.key === instance.server.key ? undefined : ownNames.get(instance.server.key);
    return instanceCheck(instance, { suspected, places, nowMs, own });
  });
}

interface Context {
  readonly suspected: Suspected;
  readonly places: AdvicePlaces;
  readonly nowMs: number;
  /** For another directory of an opencode, the name of that opencode. */
  readonly own: string | undefined;
}

function instanceCheck(instance: Instance, { suspected, places, nowMs, own }: Context): Check {
  const { name, state, host, directory, reason, lastSeenMs, server } = instance;
  const [best] = server.endpoints;
  const isDown = VERDICTS[state] === 'broken';
  const parts = [
    // If it is down, each endpoint has the reason.
    isDown || reason === undefined ? state : `${state}: ${reason}`,
    state === 'offline' && lastSeenMs !== undefined ? `last seen ${formatAge(nowMs - lastSeenMs)} ago` : '',
    `host ${quoteName(host)}`,
    directory === undefined ? '' : quoteShort(directory, MAX_DIRECTORY_CHARS),
    own === undefined ? '' : `the same opencode as ${quoteName(own)}`,
  ];
  const adviceFor = (one: ProbedEndpoint): Advice | undefined => (isDown ? undefined : adviceOn(one, instance, places));
  const details =
    own === undefined
      ? server.endpoints.map((one) => endpointCheck(one, instance, { suspected, advice: adviceFor(one) }))
      : [];
  return check(VERDICTS[state], quoteName(name), parts.filter((part) => part !== '').join(' · '), {
    details,
    advice: isDown ? adviceOn(best, instance, places) : undefined,
  });
}
