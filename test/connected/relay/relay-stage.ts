import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { expect, onTestFinished } from 'vitest';

import { RelayLink, type RelayLinkOptions } from '../../../src/connected/relay/relay-link.ts';
import type { RelayState } from '../../../src/connected/run-state.ts';
import { silentLogger } from '../../../src/base/log.ts';
import { announce } from '../../rig/announce.ts';
import { startFakeOpencode, type FakeOpencode } from '../../rig/fake/fake-opencode.ts';
import {
  descendantsOf,
  signalProcess,
  startSshd,
  type SessionProcess,
  type Sshd,
  type SshdOptions,
} from '../../rig/network/sshd.ts';
import { tempDir } from '../../rig/temp.ts';
import { until, within } from '../../rig/wait.ts';
import { ManualClock } from '../../fleet/manual-clock.ts';

/** A relay with a real sshd, an instance to register there, and links to it on a clock that only the test moves. */
export interface RelayStage {
  readonly sshd: Sshd;
  readonly opencode: FakeOpencode;
  readonly clock: ManualClock;
  /** The registry directory on the relay; it does not exist yet. */
  readonly registry: string;
  link(options?: Partial<RelayLinkOptions>): Link;
  /** All names in the registry directory except `.credentials`, sorted. */
  files(): Promise<string[]>;
  /** The names in `.credentials`. */
  passwords(): Promise<string[]>;
  registration(name: string): Promise<Record<string, unknown>>;
  /** Lets the time until the link's next attempt pass. Resolves with the number of states before it. */
  retry(link: Link): Promise<number>;
  /** As `retry`; resolves once the link is connected and its new port is registered. */
  backAgain(link: Link): Promise<void>;
  /** Resolves once nothing of any connection is left: no registration, password, temporary file, session or ssh. */
  nothingLeft(): Promise<void>;
}

/** A link and all its states. */
export interface Link extends RelayLink {
  readonly states: readonly RelayState[];
  /** Resolves with the current state once it is of this kind; with `after`, once there were more states than that. */
  reaches(kind: RelayState['kind'], after?: number): Promise<RelayState>;
  /** The ssh processes of all links of the stage. */
  ssh(): Promise<SessionProcess[]>;
  /** Sends a signal to the first of these ssh processes. */
  signalSsh(signal: NodeJS.Signals): Promise<void>;
}

/** Opens a stage that is closed after the test. */
export async function openRelayStage(options: SshdOptions = {}): Promise<RelayStage> {
  const temp = tempDir('relay-stage');
  const registry = join(temp.path, 'registry');
  const clock = new ManualClock();
  const [sshd, opencode] = await Promise.all([startSshd(options), startFakeOpencode()]);
  announce(sshd);
  const links: Link[] = [];
  const ssh = async (): Promise<SessionProcess[]> =>
    (await descendantsOf(process.pid)).filter(({ command }) => command.startsWith(sshd.command.join(' ')));
  const files = async (): Promise<string[]> =>
    existsSync(registry) ? (await readdir(registry)).filter((name) => name !== '.credentials').toSorted() : [];
  const registration = async (name: string): Promise<Record<string, unknown>> =>
    JSON.parse(await readFile(join(registry, `${name}.json`), 'utf8'));
  const retry = async (link: Link): Promise<number> => {
    await until('the link to wait', () => link.state.kind === 'waiting' && clock.due(60_000) > 0);
    const stateCount = link.states.length;
    await clock.advance(1_000);
    return stateCount;
  };
  const passwords = async (): Promise<string[]> => readdir(join(registry, '.credentials')).catch(() => []);

  onTestFinished(async () => {
    await Promise.all(links.map((link) => link.close()));
    await sshd.close();
    await opencode.close();
    await temp.close();
  });

  return {
    sshd,
    opencode,
    clock,
    registry,
    files,
    passwords,
    link(extra = {}) {
      const link = recordingLink(
        {
          sshCommand: sshd.command,
          registryDir: { path: registry, explicit: true },
          localPort: opencode.port,
          id: 'id-one',
          name: 'laptop-app',
          password: 'first secret',
          describe: (port, name) => ({
            name,
            hostname: 'laptop',
            port,
            localPort: opencode.port,
            cwd: '/home/user/project',
            connectedAt: '2026-01-01T00:00:00Z',
          }),
          clock,
          logger: silentLogger,
          random: () => 0,
          ...extra,
        },
        ssh,
      );
      links.push(link);
      return link;
    },
    registration,
    retry,
    async backAgain(link) {
      link.keep();
      const { port, name = '' } = await link.reaches('connected', await retry(link));
      expect(await registration(name)).toMatchObject({ port });
    },
    async nothingLeft() {
      let left = '';
      await until(
        () => `nothing to be left; there is ${left}`,
        async () => {
          left = JSON.stringify([await files(), await passwords(), await sshd.sessionProcesses(), await ssh()]);
          return left === '[[],[],[],[]]';
        },
      );
    },
  };
}

function recordingLink(options: RelayLinkOptions, ssh: Link['ssh']): Link {
  const states: RelayState[] = [];
  const stateEvents = new EventTarget();
  const link = new RelayLink({
    ...options,
    onChange(state) {
      states.push(state);
      stateEvents.dispatchEvent(new Event('state'));
    },
  });
  return Object.assign(link, {
    states,
    ssh,
    async signalSsh(signal: NodeJS.Signals) {
      const [first] = await ssh();
      if (first === undefined) throw new Error('Expected an ssh, got none');
      signalProcess(first.pid, signal);
    },
    reaches: (kind: RelayState['kind'], after = 0) =>
      within(
        new Promise<RelayState>((resolve) => {
          const check = (): void => {
            if (states.length <= after || link.state.kind !== kind) return;
            stateEvents.removeEventListener('state', check);
            resolve(link.state);
          };
          stateEvents.addEventListener('state', check);
          check();
        }),
        () => `the link to be ${kind}; so far ${JSON.stringify(states)}`,
      ),
  });
}
