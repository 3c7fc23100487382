import { quote } from '../../config/quote.ts';
import { SettingsError } from '../../config/settings.ts';

interface ServiceArguments {
  readonly headless: boolean;
  readonly withPassword: boolean;
  readonly forOpencode: readonly string[];
}

/** @throws {SettingsError} an argument makes no sense with the one service of an OpenCode 2 user */
export function checkServiceArguments({ headless, withPassword, forOpencode }: ServiceArguments): void {
  if (!withPassword)
    throw new SettingsError('--no-password: the service of OpenCode 2 always has a password; leave it out');
  if (headless && forOpencode.length > 0)
    throw new SettingsError(
      '--headless with OpenCode 2 starts no opencode of its own and passes nothing on; leave out the options of opencode',
    );
  for (const [index, argument] of forOpencode.entries()) {
    // A prompt may be any text.
    if (forOpencode[index - 1] === '--prompt') continue;
    const [name] = argument.split('=', 1);
    if (name === '--standalone')
      throw new SettingsError(
        `${quote(argument)}: that starts a second server on the same sessions, beside your service: two turns could run in one session; leave it out`,
      );
    if (name === '--mdns')
      throw new SettingsError(
        `${quote(argument)}: OpenCode 2 has no such flag; opencode-connected --lan puts the service on the LAN`,
      );
  }
}
