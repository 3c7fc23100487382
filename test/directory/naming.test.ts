import { expect, test } from 'vitest';

import { isSame } from '../../src/directory/names.ts';
import { identityOf } from '../../src/directory/naming.ts';
import type { Candidate } from '../../src/discovery/source.ts';

function sighting(hostname: string, route: 'tailnet' | 'lan', trust: Candidate['trust']): Candidate {
  return {
    source: 'any',
    key: 'one',
    endpoint: { url: 'http://100.64.0.1:4095/opencode-mcp/v1/i/p', route },
    claims: { id: 'p', name: 'foo', hostname },
    trust,
  };
}

const trusted = { level: 'trusted' } as const;

test.each([
  ['of a machine in the tailnet is one after a renaming', 'tailnet', trusted, true],
  ['advertised in the LAN is not: anyone may send its id', 'lan', trusted, false],
  ['that nobody vouches for is not', 'tailnet', { level: 'untrusted', reason: 'any' }, false],
] as const)('an instance %s', (_, route, trust, expected) => {
  expect(isSame(identityOf(sighting('old', route, trust)), identityOf(sighting('new', route, trust)))).toBe(expected);
});
