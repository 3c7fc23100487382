import { expect, it } from 'vitest';

import { endpointKey } from '../../src/model/endpoint-key.ts';

const endpoint = { url: 'http://100.64.0.2:4096', route: 'tailnet' } as const;

it('an endpoint with a dial function has another key than the same endpoint without one', () => {
  const dial = (): Promise<never> => Promise.reject(new Error('not dialled'));
  expect(endpointKey({ ...endpoint, dial })).not.toBe(endpointKey(endpoint));
  expect(endpointKey({ ...endpoint, dial })).toBe(endpointKey({ ...endpoint, dial: () => dial() }));
});
