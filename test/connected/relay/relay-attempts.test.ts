import { expect, it, describe, onTestFinished } from 'vitest';

import { silentLogger } from '../../../src/base/log.ts';
import { RelayLink, type RelayLinkOptions } from '../../../src/connected/relay/relay-link.ts';
import { ManualClock, settle } from '../../fleet/manual-clock.ts';
import { until } from '../../rig/wait.ts';

const neverAborted = new AbortController().signal;

/** Options of a link that never connects. */
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
    'the output of a program, which must not prompt',
    ['sh', '-c', 'echo "$SSH_ASKPASS_REQUIRE $CLOUDSDK_CORE_DISABLE_PROMPTS" >&2; exit 1', 'sh'],
    '"never 1" (ssh ended with status 1)',
  ],
])('the link reports %s', async (_, sshCommand, reason) => {
  const link = new RelayLink({ ...OPTIONS, sshCommand });
  expect(await link.connectFirst(neverAborted)).toEqual({ kind: 'waiting', reason });
  await link.close();
});

it.each([
  ['name', { name: 'a\nb' }],
  ['directory', { registryDir: { path: '/a\nid evil', explicit: true } }],
  ['password', { password: 'secret\nid evil' }],
])('the constructor throws if the %s contains a line break', (word, badOption) => {
  expect(() => new RelayLink({ ...OPTIONS, ...badOption })).toThrow(
    `cannot register: the ${word} contains a control character; choose another`,
  );
});

describe('the wait for the next attempt', () => {
  /** Lets one attempt fail for each of `delays`, and expects that delay before the next attempt. */
  async function failAttempts(
    random: number,
    delays: readonly number[],
  ): Promise<{ clock: ManualClock; nextDelay: () => Promise<number> }> {
    const clock = new ManualClock();
    const link = new RelayLink({ ...OPTIONS, sshCommand: ['no-such-ssh'], clock, random: () => random });
    onTestFinished(() => link.close());
    link.keep();
    let lastAttemptAtMs: number | undefined;
    const nextDelay = async (): Promise<number> => {
      lastAttemptAtMs = await until('the next delay', () => {
        const { nextAttemptAtMs } = link.state;
        return nextAttemptAtMs !== lastAttemptAtMs && clock.due() > 0 ? nextAttemptAtMs : undefined;
      });
      return lastAttemptAtMs - clock.now();
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
  ])('grows to at most a minute with the %s jitter', async (_, random, delays) => {
    await failAttempts(random, delays);
  });

  it('ends at once when the machine wakes up', async () => {
    const { clock, nextDelay } = await failAttempts(1, [2_000, 4_000, 8_000, 16_000]);
    expect(await nextDelay()).toBe(32_000);
    clock.step(20_000);
    await clock.advance(1_000);
    await settle();
    // The attempt after waking up counts as the first.
    expect(await nextDelay()).toBe(2_000);
  });
});
