import { INSTANCE_PREFIX, NODE_PROTOCOL } from '../../discovery/tailnet/peer-list.ts';
import type { OwnInstance } from './own-instances.ts';

/** The machine that serves the list. */
export interface ListingNode {
  /** Stable node id of the tailnet. */
  readonly id: string;
  /** Its tailnet name. */
  readonly name: string;
  /** Its host name. */
  readonly host: string;
}

type Listed = Pick<OwnInstance, 'id' | 'version' | 'port'> & {
  readonly host: string;
  /** Where it is proxied, on the same origin. */
  readonly path: string;
};

/** The answer to `LIST_PATH`. It holds no password. */
export interface Listing {
  readonly protocol: number;
  readonly node: ListingNode;
  readonly instances: readonly (Listed & Pick<OwnInstance, 'name' | 'directory'>)[];
  /** OpenCode 2, which has no directory of its own. Separate, because older readers would treat it as an instance. */
  readonly services: readonly (Listed & Pick<OwnInstance, 'dialect'>)[];
}

export function listingOf(node: ListingNode, instances: readonly OwnInstance[]): Listing {
  const placeOf = (id: string) => ({ id, host: node.host, path: INSTANCE_PREFIX + id });
  return {
    protocol: NODE_PROTOCOL,
    node,
    instances: instances
      .filter((one) => !isService(one))
      .map(({ id, name, directory, version, port }) => ({ ...placeOf(id), name, directory, version, port })),
    services: instances
      .filter(isService)
      .map(({ id, version, port, dialect }) => ({ ...placeOf(id), version, port, dialect })),
  };
}

function isService({ dialect }: OwnInstance): boolean {
  return dialect !== 'opencode-1';
}
