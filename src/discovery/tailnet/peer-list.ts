import * as z from 'zod';
import { badPortReason } from '../../base/urls.ts';
import { jsonOf } from '../../base/errors.ts';
import { singleLine } from '../../base/plain-text.ts';
import { type PeerStates, readPeerStates } from './peer-states.ts';

/** The list of a node service. */
export const LIST_PATH = '/opencode-mcp/v1/instances';
/** The list with the state of each instance; an older node service answers with 404. */
export const STATES_PATH = '/opencode-mcp/v1/states';
/** Followed by an instance's id; everything below is proxied to that instance. */
export const INSTANCE_PREFIX = '/opencode-mcp/v1/i/';
/** The version of the list; a reader refuses an unknown one. */
export const NODE_PROTOCOL = 1;

/** Needs no escaping in a path, so that an id cannot lead elsewhere. */
export const INSTANCE_ID = /^[A-Za-z0-9_-]{1,64}$/;

/** Far more than anyone runs on one machine. */
const MAX_INSTANCES = 200;
const MAX_SERVICES = 16;
const MAX_VERSION_CHARS = 32;
const MAX_NAME_CHARS = 128;
/** PATH_MAX on Linux. */
const MAX_DIRECTORY_CHARS = 4096;

export interface ListedInstance {
  readonly id: string;
  readonly name: string;
  readonly directory?: string;
  /** opencode's port on its own machine. */
  readonly port?: number;
  /** Path on the node service, made from the id. */
  readonly path: string;
}

/** An OpenCode 2. */
export interface ListedService extends Pick<ListedInstance, 'id' | 'port' | 'path'> {
  readonly version?: string;
  readonly isPreview: boolean;
}

export type PeerList =
  | {
      readonly instances: readonly ListedInstance[];
      readonly services: readonly ListedService[];
      readonly states: PeerStates['states'];
      readonly leftOut: number;
    }
  | { readonly problem: string };

const entrySchema = z.object({
  id: z.string().regex(INSTANCE_ID),
  name: z.string().nullish(),
  directory: z.string().nullish(),
  port: z.int().min(1).max(65_535).nullish(),
});

const serviceSchema = entrySchema
  .pick({ id: true, port: true })
  .extend({ version: z.string().nullish(), dialect: z.string().nullish() });

const entries = z.array(z.unknown()).nullish();
const listSchema = z.object({ protocol: z.number(), instances: entries, services: entries, states: entries });

/**
 * Reads a node service's list. The machine that sent it may be hostile: text is bounded and cleaned, invalid entries are
 * left out and counted, and no address, path or host in it is used.
 */
export function readPeerList(text: string): PeerList {
  const parsed = listSchema.safeParse(jsonOf(text));
  if (!parsed.success) return { problem: 'answered with something other than a list of instances' };
  const { protocol, instances, services, states } = parsed.data;
  if (protocol !== NODE_PROTOCOL)
    return { problem: `its node service speaks protocol ${protocol}, this program ${NODE_PROTOCOL}; update the older` };
  const known = new Set<string>();
  const read = <T extends { readonly id: string }, U>(
    raw: readonly unknown[],
    schema: z.ZodType<T>,
    listed: (entry: T) => U,
  ): readonly U[] =>
    raw.flatMap((one) => {
      const { data } = schema.safeParse(one);
      if (data === undefined || known.has(data.id)) return [];
      known.add(data.id);
      return [listed(data)];
    });
  const listed = {
    instances: read((instances ?? []).slice(0, MAX_INSTANCES), entrySchema, instanceOf),
    services: read((services ?? []).slice(0, MAX_SERVICES), serviceSchema, serviceOf),
  };
  const reported = readPeerStates(states ?? [], known);
  const leftOut = (instances?.length ?? 0) + (services?.length ?? 0) - known.size + reported.leftOut;
  return { ...listed, states: reported.states, leftOut };
}

/** Whether this is the answer of an opencode to `/global/health`, healthy or not. */
export function isHealth(text: string): boolean {
  return z.object({ healthy: z.boolean(), version: z.string() }).safeParse(jsonOf(text)).success;
}

function instanceOf({ id, name, directory, port }: z.infer<typeof entrySchema>): ListedInstance {
  const label = singleLine(name ?? '', MAX_NAME_CHARS).trim();
  // A directory that had to be cleaned would name another one.
  const usable = directory != null && directory !== '' && singleLine(directory, MAX_DIRECTORY_CHARS) === directory;
  return {
    id,
    name: label === '' ? id : label,
    ...(usable && { directory }),
    ...addressOnNode(id, port),
  };
}

function serviceOf({ id, port, version, dialect }: z.infer<typeof serviceSchema>): ListedService {
  const shown = singleLine(version ?? '', MAX_VERSION_CHARS).trim();
  return {
    id,
    ...(shown !== '' && { version: shown }),
    isPreview: dialect === 'opencode-2-preview',
    ...addressOnNode(id, port),
  };
}

function addressOnNode(id: string, port: number | null | undefined): Pick<ListedInstance, 'port' | 'path'> {
  return {
    ...(port != null && badPortReason(port) === undefined && { port }),
    path: INSTANCE_PREFIX + id,
  };
}
