import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { RelayLink, type RelayLinkOptions } from '../../../src/connected/relay/relay-link.ts';
import type { RelayState } from '../../../src/connected/run-state.ts';
import { silentLogger } from '../../../src/base/log.ts';
import { announce } from '../../rig/announce.ts';
import { startFakeOpencode, type FakeOpencode } from '../../rig/fake-opencode.ts';
import { descendantsOf, startSshd, type SessionProcess, type Sshd, type SshdOptions } from '../../rig/sshd.ts';
import { tempDir } from '../../rig/temp.ts';
import { until, within } from '../../rig/wait.ts';
import { ManualClock } from '../../fleet/manual-clock.ts';

/** A relay with a real sshd, an instance to register there, and links to it on a clock that only the test moves. */
export interface RelayStage extends AsyncDisposable {
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
  /** Resolves once nothing of any connection is left: no registration, password, temporary, session or ssh. */
  nothingLeft(): Promise<void>;
}

/** A link and all its states. */
export interface Link extends RelayLink {
  readonly states: readonly RelayState[];
  /** Resolves with the current state once it is of this kind; with `after`, once there were more states than that. */
  reaches(kind: RelayState['kind'], after?: number): Promise<RelayState>;
  /** The ssh processes of this link. */
  ssh(): Promise<SessionProcess[]>;
}

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
  const passwords = async (): Promise<string[]> => readdir(join(registry, '.credentials')).catch(() => []);

  return {
    sshd,
    opencode,
    clock,
    registry,
    files,
    passwords,
    link(extra = {}) {
      const link = watched({ ssh, clock, sshd, registry, port: opencode.port, extra });
      links.push(link);
      return link;
    },
    async registration(name) {
      const fields: Record<string, unknown> = JSON.parse(await readFile(join(registry, `${name}.json`), 'utf8'));
      return fields;
    },
    async nothingLeft() {
      let left: unknown;
      await until('nothing to be left', async () => {
        left = [await files(), await passwords(), await sshd.sessionProcesses(), await ssh()];
        return JSON.stringify(left) === '[[],[],[],[]]';
      }).catch((error: unknown) => {
        throw new Error(`still there: ${JSON.stringify(left)}`, { cause: error });
      });
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(links.map((link) => link.close()));
      await sshd.close();
      await opencode.close();
      await temp.close();
    },
  };
}

interface Wiring {
  readonly ssh: () => Promise<SessionProcess[]>;
  readonly clock: ManualClock;
  readonly sshd: Sshd;
  readonly registry: string;
  readonly port: number;
  readonly extra: Partial<RelayLinkOptions>;
}

function watched({ ssh, clock, sshd, registry, port, extra }: Wiring): Link {
  const states: RelayState[] = [];
  const news = new EventTarget();
  const link = new RelayLink({
    sshCommand: sshd.command,
    registryDir: { path: registry, explicit: true },
    localPort: port,
    id: 'id-one',
    name: 'laptop-app',
    password: 'first secret',
    describe: (tunnelPort, name) => ({
      name,
      hostname: 'laptop',
      port: tunnelPort,
      localPort: port,
      cwd: '/home/user/project',
      connectedAt: '2026-01-01T00:00:00Z',
    }),
    clock,
    logger: silentLogger,
    random: () => 0,
    ...extra,
    onChange(state) {
      states.push(state);
      news.dispatchEvent(new Event('state'));
    },
  });
  return Object.assign(link, {
    states,
    ssh,
    reaches: (kind: RelayState['kind'], after = 0) =>
      within(
        new Promise<RelayState>((resolve) => {
          const look = (): void => {
            if (states.length <= after || link.state.kind !== kind) return;
            news.removeEventListener('state', look);
            resolve(link.state);
          };
          news.addEventListener('state', look);
          look();
        }),
        () => `the link to be ${kind}; so far ${JSON.stringify(states)}`,
      ),
  });
}
