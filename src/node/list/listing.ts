import { INSTANCE_PREFIX, NODE_PROTOCOL } from '../../discovery/tailnet/peer-list.ts';
import type { OwnInstance } from './own-instances.ts';

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
  readonly protocol: number;
  readonly node: ListingNode;
  readonly instances: readonly (Omit<OwnInstance, 'candidate'> & {
    readonly host: string;
    /** Where it is proxied, on the same origin. */
    readonly path: string;
  })[];
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
