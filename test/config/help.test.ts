import { describe, expect, it } from 'vitest';
import { settingsHelp } from '../../src/config/help.ts';

describe('settingsHelp', () => {
  const help = settingsHelp('opencode-mcp');

  it.each([
    [
      'flag, variable, key, description and default',
      '  --interval-ms MS | DISCOVERY_INTERVAL_MS | discoveryIntervalMs\n      time between two discovery rounds; most changes are noticed at once (default: 30000)\n',
    ],
    ['both forms of a switch', '  --read-only, --no-read-only | OPENCODE_MCP_READ_ONLY | readOnly\n'],
    ['no flag for the password', '\n  OPENCODE_SERVER_PASSWORD | password\n'],
  ])('shows %s', (_, expected) => {
    expect(help).toContain(expected);
  });

  it('lists only the settings of the given program', () => {
    const connected = settingsHelp('opencode-connected');
    for (const name of ['RELAY_SSH_CMD', 'RELAY_REMOTE_REGISTRY_DIR', 'INSTANCE_NAME', 'OPENCODE_BIN']) {
      expect([connected.includes(name), help.includes(name)]).toEqual([true, false]);
    }
    for (const name of ['DISCOVERY_INTERVAL_MS', 'OPENCODE_MCP_TOOLSETS', 'SEND_TIMEOUT_MS', 'TRANSPORT']) {
      expect([connected.includes(name), help.includes(name)]).toEqual([false, true]);
    }
    expect(connected).toContain('RELAY_REGISTRY_DIR');
  });
});
