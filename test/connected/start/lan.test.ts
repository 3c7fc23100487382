import { expect, test } from 'vitest';

import { checkLan } from '../../../src/connected/start/lan.ts';

const connected = { relayRegistryDir: { path: '/registry', explicit: true }, opencodeBin: 'opencode' };

test('--lan requires a password, an interface and a port that is not blocked', () => {
  checkLan({ mdnsInterfaces: 'all', connected }, true);
  checkLan({ mdnsInterfaces: ['eth0'], connected: { ...connected, lanPort: 4777 } }, true);
  expect(() => checkLan({ mdnsInterfaces: 'all', connected }, false)).toThrow('--lan with --no-password: everyone');
  expect(() => checkLan({ mdnsInterfaces: [], connected }, true)).toThrow('--lan with OPENCODE_MDNS_INTERFACES=none');
  expect(() => checkLan({ mdnsInterfaces: 'all', connected: { ...connected, lanPort: 6000 } }, true)).toThrow(
    "OPENCODE_LAN_PORT: port 6000 is on the web's list of blocked ports",
  );
});
