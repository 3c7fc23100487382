import { describe, expect, it } from 'vitest';
import { settingsHelp } from '../../src/config/help.ts';

describe('settingsHelp', () => {
  const help = settingsHelp('opencode-mcp');

  it('shows flag, variable, key, description and default of a setting', () => {
    expect(help).toContain(
      '  --interval-ms MS | DISCOVERY_INTERVAL_MS | discoveryIntervalMs\n      time between two discovery rounds; most changes are noticed at once (default: 30000)\n',
    );
  });

  it('shows both forms of a switch', () => {
    expect(help).toContain('  --read-only, --no-read-only | OPENCODE_MCP_READ_ONLY | readOnly\n');
  });

  it('offers no flag for the password', () => {
    expect(help).toContain('  OPENCODE_SERVER_PASSWORD | password\n');
    expect(help).not.toContain('--password');
  });

  it('lists for each program its own settings', () => {
    const connected = settingsHelp('opencode-connected');
    for (const name of ['RELAY_SSH_CMD', 'RELAY_REMOTE_REGISTRY_DIR', 'INSTANCE_NAME', 'OPENCODE_BIN']) {
      expect([connected.includes(name), help.includes(name)]).toEqual([true, false]);
    }
    for (const name of ['DISCOVERY_INTERVAL_MS', 'OPENCODE_MCP_TOOLSETS', 'SEND_TIMEOUT_MS', 'TRANSPORT']) {
      expect([connected.includes(name), help.includes(name)]).toEqual([false, true]);
    }
    expect(connected).toContain('RELAY_REGISTRY_DIR');
  });

  it('lists every setting of the server', () => {
    const rows = help.split('\n').filter((line) => /^ {2}\S/.test(line));
    expect(rows.map((row) => row.trim().split(' | ').at(-1))).toEqual([
      '--config PATH',
      'registryDir',
      'discoveryIntervalMs',
      'healthCheckTimeoutMs',
      'healthConcurrency',
      'sendTimeoutMs',
      'transport',
      'toolsets',
      'readOnly',
      'approve',
      'logLevel',
      'username',
      'tailscaleSocket',
      'nodePort',
      'tailnetPorts',
      'tailnetTags',
      'tailnetUsers',
      'mdnsInterfaces',
      'password',
      'credentials',
      'instances',
      'approvals',
      'notify',
    ]);
  });
});
