import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as z from 'zod';
import { errorCode, jsonOf } from '../base/errors.ts';
import { isAlive } from './process-table.ts';

/** Only this user can write there, but a damaged file must not fill the memory. */
const MAX_STATE_BYTES = 64 * 1024;

const relayStateSchema = z.object({
  kind: z.enum(['connecting', 'connected', 'waiting', 'closed']),
  /** While connected: the name on the relay. */
  name: z.string().optional(),
  /** While connected: the tunnel's port on the relay. */
  port: z.int().optional(),
  /** Why there is no connection: while waiting, or if the relay's configuration permits none. Safe to show. */
  reason: z.string().optional(),
  /** While waiting: milliseconds since the Unix epoch. */
  nextAttemptAtMs: z.number().optional(),
});

/** The state of a link to a relay, or to this machine's registry directory. */
export type RelayState = z.infer<typeof relayStateSchema>;

const runStateSchema = z.object({
  id: z.string().regex(/^[A-Za-z0-9_-]{1,64}$/),
  /** The name on this machine. */
  name: z.string(),
  pid: z.int(),
  started: z.string().optional(),
  /** The opencode that ends with the wrapper. With OpenCode 2 the terminal, or the wrapper itself without a terminal. */
  opencodePid: z.int(),
  opencodeStarted: z.string().optional(),
  /** Where the tunnel leads, or where the opencode listens if there is no tunnel. */
  port: z.int(),
  /** The OpenCode 2 service that the wrapper registers; it outlives the wrapper. */
  service: z.object({ url: z.string(), pid: z.int() }).optional(),
  directory: z.string(),
  registryFile: z.string(),
  passwordFile: z.string().optional(),
  /** Whether it listens on the LAN and is advertised there. */
  onLan: z.boolean().optional(),
  /** The proxy on the LAN, if it is not the instance itself that listens there. */
  lan: z.object({ port: z.int(), passwordFile: z.string() }).optional(),
  relay: relayStateSchema.optional(),
  sshPid: z.int().optional(),
  logFile: z.string(),
  /** ISO 8601. */
  startedAt: z.string(),
  version: z.string(),
});

/** What one running wrapper writes about itself to `<state directory>/connected/<id>.json`. */
export type RunState = z.infer<typeof runStateSchema>;

export interface RunStateFile {
  readonly path: string;
  readonly state: RunState;
  readonly isRunning: boolean;
}

/** The folder of the state files. Its mode is 0700, each file's 0600. */
export function runStateFolder(stateDir: string): string {
  return join(stateDir, 'connected');
}

export function runStatePath(stateDir: string, id: string): string {
  return join(runStateFolder(stateDir), `${id}.json`);
}

/** Every state file of this user, oldest first. A missing folder counts as empty; files that hold no state are left out. */
export async function readRunStates(stateDir: string): Promise<readonly RunStateFile[]> {
  const folder = runStateFolder(stateDir);
  const names = await readdir(folder).catch((error: unknown) => {
    if (errorCode(error) === 'ENOENT') return [];
    throw error;
  });
  const files = await Promise.all(
    names.filter((name) => /^[^.].*\.json$/.test(name)).map((name) => readRunState(join(folder, name))),
  );
  return files
    .filter((file) => file !== undefined)
    .toSorted((one, other) => one.state.startedAt.localeCompare(other.state.startedAt));
}

async function readRunState(path: string): Promise<RunStateFile | undefined> {
  const text = await readFile(path, 'utf8').catch(() => '');
  if (text.length > MAX_STATE_BYTES) return undefined;
  const parsed = runStateSchema.safeParse(jsonOf(text));
  if (!parsed.success) return undefined;
  return { path, state: parsed.data, isRunning: await isAlive(parsed.data) };
}
