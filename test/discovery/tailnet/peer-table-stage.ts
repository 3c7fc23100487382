import { onTestFinished } from 'vitest';

import { PeerTable } from '../../../src/discovery/tailnet/peer-table.ts';
import type { PeerSite } from '../../../src/discovery/tailnet/peer.ts';
import { ManualClock } from '../../fleet/manual-clock.ts';
import { tailnetNode } from '../../rig/fake/memory-local-api.ts';

/** A table for `peer0`, `peer1`, …, which all have the node service on a port of this machine. */
export function peerTable(nodePort: number, peers = 1) {
  const clock = new ManualClock();
  let changes = 0;
  const table = new PeerTable({ nodePort, ports: [], clock, onChange: () => void (changes += 1) });
  onTestFinished(() => table.close());
  const sites = Array.from({ length: peers }, (_, index): PeerSite => {
    return { node: tailnetNode({ id: `peer${index}` }), address: '127.0.0.1', dial: undefined };
  });
  return {
    table,
    clock,
    sites,
    /** How often the table has reported a change. */
    changes: () => changes,
    /** Asks all peers once, and follows them from then on. */
    async follow(): Promise<void> {
      table.keep(sites);
      table.follow();
      await table.ask();
    },
  };
}
