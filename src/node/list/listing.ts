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

type Listed = Pick<OwnInstance, 'id' | 'version' | 'port'> & {
  readonly host: string;
  /** Where it is proxied, on the same origin. */
  readonly path: string;
};

/** The answer to `LIST_PATH`. A password is never in it. */
export interface Listing {
  readonly protocol: number;
  readonly node: ListingNode;
  readonly instances: readonly (Listed & Pick<OwnInstance, 'name' | 'directory'>)[];
  /** OpenCode 2, which has no directory of its own. Apart, since a reader that knows of instances only would ask it as one. */
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
