import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as z from 'zod';
import { errorCode, jsonOf } from '../base/errors.ts';
import { isAlive } from './process-table.ts';

/** Bounded: the folder is ours, but a damaged file must not fill the memory. */
const MAX_STATE_BYTES = 64 * 1024;

const relayStateSchema = z.object({
  kind: z.enum(['connecting', 'connected', 'waiting', 'closed']),
  /** On the relay, while connected. */
  name: z.string().optional(),
  /** The relay's end of the tunnel, while connected. */
  port: z.int().optional(),
  /** While waiting: why there is no connection. Safe to show. */
  reason: z.string().optional(),
  /** While waiting: milliseconds since the Unix epoch. */
  nextAttemptAtMs: z.number().optional(),
});

const runStateSchema = z.object({
  id: z.string().regex(/^[A-Za-z0-9_-]{1,64}$/),
  /** As registered on this machine. */
  name: z.string(),
  /** Of the wrapper. */
  pid: z.int(),
  /** Of the wrapper, as `ProcessIdentity.started`. */
  started: z.string().optional(),
  /** Of the opencode that ends with the wrapper; with OpenCode 2, of its terminal, or of the wrapper where it has none. */
  opencodePid: z.int(),
  /** As `ProcessIdentity.started`. */
  opencodeStarted: z.string().optional(),
  /** Where the tunnel leads, if there is one, else where the opencode listens. */
  port: z.int(),
  /** It stands for the service of OpenCode 2, which ends with nothing here. */
  service: z.object({ url: z.string(), pid: z.int() }).optional(),
  directory: z.string(),
  registryFile: z.string(),
  passwordFile: z.string().optional(),
  /** It listens on the LAN and is advertised there. */
  onLan: z.boolean().optional(),
  /** Where it does so, and the password for that, where it is not the instance itself that listens there. */
  lan: z.object({ port: z.int(), passwordFile: z.string() }).optional(),
  /** Absent without a relay. */
  relay: relayStateSchema.optional(),
  /** Of the ssh that runs now. */
  sshPid: z.int().optional(),
  logFile: z.string(),
  /** ISO 8601. */
  startedAt: z.string(),
  /** Of this program. */
  version: z.string(),
});

/** What one running wrapper says of itself, in `<state directory>/connected/<id>.json`. */
export type RunState = z.infer<typeof runStateSchema>;

export interface RunStateFile {
  /** Absolute. */
  readonly path: string;
  readonly state: RunState;
  /** Whether the very wrapper that wrote it still runs. */
  readonly isRunning: boolean;
}

/** The folder of the state files: mode 0700, each file 0600. */
export function runStateFolder(stateDir: string): string {
  return join(stateDir, 'connected');
}

/** The file of the instance `id`. */
export function runStatePath(stateDir: string, id: string): string {
  return join(runStateFolder(stateDir), `${id}.json`);
}

/** Every state file of this machine's user, oldest first. A missing folder is empty; files that are no state are left out. */
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
  const { pid, started } = parsed.data;
  return { path, state: parsed.data, isRunning: await isAlive({ pid, ...(started !== undefined && { started }) }) };
}
