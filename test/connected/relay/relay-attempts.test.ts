import { expect, it, describe, onTestFinished } from 'vitest';

import { silentLogger } from '../../../src/base/log.ts';
import { RelayLink, type RelayLinkOptions } from '../../../src/connected/relay/relay-link.ts';
import { ManualClock, settle } from '../../fleet/manual-clock.ts';
import { until } from '../../rig/wait.ts';

const never = new AbortController().signal;

/** Of a link that never connects. */
const OPTIONS: RelayLinkOptions = {
  sshCommand: ['ssh', 'relay'],
  registryDir: { path: '/tmp/nowhere', explicit: true },
  localPort: 4096,
  id: 'id',
  name: 'name',
  describe: () => ({}),
  clock: new ManualClock(),
  logger: silentLogger,
};

it.each([
  [
    'a missing program',
    ['no-such-ssh', 'relay'],
    'cannot run "no-such-ssh": there is no such program; install it, or correct RELAY_SSH_CMD',
  ],
  [
    'what a program prints that may not ask',
    ['sh', '-c', 'echo "$SSH_ASKPASS_REQUIRE $CLOUDSDK_CORE_DISABLE_PROMPTS" >&2; exit 1', 'sh'],
    '"never 1" (ssh ended with status 1)',
  ],
])('reports %s', async (_, sshCommand, reason) => {
  const link = new RelayLink({ ...OPTIONS, sshCommand });
  expect(await link.connectFirst(never)).toEqual({ kind: 'waiting', reason });
  await link.close();
});

it.each([
  ['name', { name: 'a\nb' }],
  ['directory', { registryDir: { path: '/a\nid evil', explicit: true } }],
  ['password', { password: 'secret\nid evil' }],
])('throws before anything runs if the %s contains a line break', (word, wrong) => {
  expect(() => new RelayLink({ ...OPTIONS, ...wrong })).toThrow(
    `cannot register: the ${word} contains a control character; choose another`,
  );
});

describe('the wait for the next attempt', () => {
  /** Goes through waits of these lengths, in each of which an attempt failed. */
  async function failing(
    random: number,
    delays: readonly number[],
  ): Promise<{ clock: ManualClock; nextDelay: () => Promise<number> }> {
    const clock = new ManualClock();
    const link = new RelayLink({ ...OPTIONS, sshCommand: ['no-such-ssh'], clock, random: () => random });
    onTestFinished(() => link.close());
    link.keep();
    let last: number | undefined;
    const nextDelay = async (): Promise<number> => {
      last = await until('the next delay', () => {
        const { nextAttemptAtMs } = link.state;
        return nextAttemptAtMs !== last && clock.due() > 0 ? nextAttemptAtMs : undefined;
      });
      return last - clock.now();
    };
    for (const delay of delays) {
      expect(await nextDelay()).toBe(delay);
      await clock.advance(delay);
    }
    return { clock, nextDelay };
  }

  it.each([
    ['longest', 1, [2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]],
    ['shortest', 0, [1_000, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000]],
    ['middle', 0.5, [1_500, 2_500, 4_500, 8_500, 16_500, 30_500, 30_500]],
  ])('grows to at most a minute: the %s', async (_, random, delays) => {
    await failing(random, delays);
  });

  it('ends at once when the machine wakes up', async () => {
    const { clock, nextDelay } = await failing(1, [2_000, 4_000, 8_000, 16_000]);
    expect(await nextDelay()).toBe(32_000);
    clock.step(20_000);
    await clock.advance(1_000);
    await settle();
    // Another attempt was made, and counts as the first.
    expect(await nextDelay()).toBe(2_000);
  });
});
