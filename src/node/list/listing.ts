import type { OwnInstance } from './own-instances.ts';

/** The version of what a node service serves; callers refuse one they do not know. */
const NODE_PROTOCOL = 1;

/** The list of this machine's instances. */
export const LIST_PATH = '/opencode-mcp/v1/instances';

/** Everything below `<prefix><instance id>` is that instance's. */
export const INSTANCE_PREFIX = '/opencode-mcp/v1/i/';

/** As registrations have it; nothing in it needs escaping in a path. */
const INSTANCE_ID = /^[A-Za-z0-9_-]{1,64}$/;

export function isInstanceId(text: string): boolean {
  return INSTANCE_ID.test(text);
}

/** Who serves the list. */
export interface ListingNode {
  /** Stable node id of the tailnet. */
  readonly id: string;
  /** Its name in the tailnet. */
  readonly name: string;
  /** The machine's own name. */
  readonly host: string;
}

/** The answer to `LIST_PATH`. A password is never in it. */
export interface Listing {
  readonly protocol: typeof NODE_PROTOCOL;
  readonly node: ListingNode;
  readonly instances: readonly {
    readonly id: string;
    readonly name: string;
    readonly host: string;
    readonly directory: string;
    readonly version: string;
    /** Where opencode listens on its machine; only compared, never connected to. */
    readonly port: number;
    /** Where it is proxied, on the same origin. */
    readonly path: string;
  }[];
}

export function listingOf(node: ListingNode, instances: readonly OwnInstance[]): Listing {
  return {
    protocol: NODE_PROTOCOL,
    node,
    instances: instances.map(({ id, name, directory, version, port }) => ({
      id,
      name,
      host: node.host,
      directory,
      version,
      port,
      path: INSTANCE_PREFIX + id,
    })),
  };
}
