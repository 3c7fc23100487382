import { describe, expect, it } from 'vitest';
import { badPortReason } from '../../src/base/urls.ts';

describe('badPortReason', () => {
  it('gives a reason for every port that fetch refuses', async () => {
    const ports = Array.from({ length: 65_535 }, (_, index) => index + 1).filter(
      (port) => badPortReason(port) !== undefined,
    );
    expect(ports).toHaveLength(82);
    for (const port of ports) {
      const error: unknown = await fetch(`http://127.0.0.1:${port}`).catch((reason: unknown) => reason);
      expect(error, `port ${port}`).toMatchObject({ cause: { message: 'bad port' } });
    }
    expect(badPortReason(6000)).toMatch(/port 6000 .*fetch refuses/);
  });

  it.each([80, 443, 4095, 4096, 4097, 6001, 8080, 65_535])('gives no reason for port %i', (port) => {
    expect(badPortReason(port)).toBeUndefined();
  });
});
