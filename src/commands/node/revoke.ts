import { systemClock } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import { type Output, ReportedError } from '../../base/program.ts';
import { type Settings, SettingsError } from '../../config/settings.ts';
import { allow, isRevoked, revocationPath, revoke } from '../../node/revocation.ts';

const ENDED = `revoked: running node services, dashboards and \`open\` of this user cut every connection now and serve nothing.
Their page tokens and cookies are void, and they send no password on.

This does not end:
- a running opencode, or access by somebody who knows its password: restart it with opencode-connected
- the tunnel of an opencode-connected to a relay: end that opencode-connected
- an opencode that listens on the LAN: end it
- MCP servers, opencode-mcp attach and other commands that you run on this machine

To serve again: opencode-mcp node --allow
`;

/** `opencode-mcp node --revoke` and `--allow`. @throws {ReportedError} */
export async function revokeNode(
  { stateDir }: Settings,
  flags: ReadonlyMap<string, string>,
  { print }: Output,
): Promise<void> {
  const [isRevoke, isAllow] = ['revoke', 'allow'].map((name) => flags.get(name) === 'true');
  if (isRevoke === isAllow) throw new SettingsError('opencode-mcp node: give either --revoke or --allow');
  try {
    if (isRevoke === true) {
      await revoke(stateDir, systemClock.now());
      print(ENDED);
      return;
    }
    const was = await allow(stateDir);
    if (isRevoked(stateDir)) throw new Error('the file is still there');
    print(
      was
        ? 'allowed: a running opencode-mcp node serves again; start dashboards again yourself.\n'
        : 'nothing was revoked.\n',
    );
  } catch (error) {
    const what = isRevoke === true ? 'cannot write' : 'cannot remove';
    throw new ReportedError(`opencode-mcp node: ${what} ${revocationPath(stateDir)}: ${messageOf(error)}`);
  }
}
