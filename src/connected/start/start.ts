import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';

import { systemClock } from '../../clock.ts';
import type { Settings } from '../../config/settings.ts';
import { VERSION } from '../../version.ts';
import { splitCommand } from '../relay/ssh-command.ts';
import { childEnvironment } from './child-environment.ts';
import { Guard } from './guard.ts';
import { checkInstanceName, defaultInstanceName } from './instance-name.ts';
import { fileLogger, logPath } from './log-file.ts';
import type { Ending } from './opencode-process.ts';
import { findOpencode } from './opencode-program.ts';
import { Registrations, type RegistrationsOptions } from './registrations.ts';
import { passSignals } from './signals.ts';
import { Supervised } from './supervised.ts';
import { rememberTerminal } from './terminal.ts';

export interface StartOptions {
  readonly settings: Settings;
  readonly headless: boolean;
  readonly withPassword: boolean;
  /** Arguments for opencode, untouched. */
  readonly forOpencode: readonly string[];
  readonly process: NodeJS.Process;
}

const ID_BYTES = 12;
const PASSWORD_BYTES = 32;

/**
 * Starts opencode, registers it here and on the relay for as long as it answers, and ends with it. Resolves with how it
 * ended. Throws a `SettingsError` for what is wrong before anything was started, an `OpencodeError` for what opencode cannot do.
 */
export async function start(options: StartOptions): Promise<Ending> {
  const { settings, headless, forOpencode, process } = options;
  const { stateDir } = settings;
  const { opencodeBin } = settings.connected;
  const tell = (line: string): void => void process.stderr.write(`opencode-connected: ${line}\n`);
  const program = await findOpencode(opencodeBin, process.env['PATH']);
  const password = options.withPassword ? randomBytes(PASSWORD_BYTES).toString('base64url') : undefined;
  const logFile = logPath(stateDir);
  const logger = fileLogger(logFile);
  const name = nameOf(settings);
  const relay = relayOf(settings);
  const guard = new Guard();
  const registrations = new Registrations({
    id: randomBytes(ID_BYTES).toString('base64url'),
    name,
    password,
    registryDir: settings.registryDir.path,
    relay,
    stateDir,
    logFile,
    version: VERSION,
    clock: systemClock,
    logger,
    onSsh: (ssh) => guard.watchSsh(ssh),
    tell,
  });
  const env = childEnvironment(process.env, password);
  const supervised = new Supervised({
    launch: {
      program,
      headless,
      args: forOpencode,
      env,
      clock: systemClock,
      ...(password !== undefined && { password }),
    },
    terminal: rememberTerminal(process),
    guard,
    logger,
  });
  const signals = passSignals(process, supervised);
  try {
    if (password === undefined) tell(NO_PASSWORD);
    await supervised.choosePort();
    guard.remove(registrations.stateFile);
    await registrations.connect(supervised.port, signals.giveUp);
    if (signals.ended !== undefined) return { code: null, signal: signals.ended };
    signals.starting();
    return await supervised.run({
      answers(instance) {
        registrations.announce(instance);
        if (headless)
          tell(
            `${registrations.name} answers at http://127.0.0.1:${instance.port}; opencode-connected status says more`,
          );
      },
      moved: (port) => registrations.move(port),
    });
  } finally {
    await registrations.close();
    guard.dismiss();
    signals.stop();
  }
}

const NO_PASSWORD =
  'without a password every user of this machine, everyone on the relay, and any web page that you open can run commands as you through it';

function nameOf({ connected: { instanceName } }: Settings): string {
  if (instanceName !== undefined) return checkInstanceName(instanceName);
  return defaultInstanceName(hostname(), process.cwd());
}

function relayOf({ connected: { relaySshCommand, relayRegistryDir } }: Settings): RegistrationsOptions['relay'] {
  if (relaySshCommand === undefined) return undefined;
  return { sshCommand: splitCommand(relaySshCommand, 'RELAY_SSH_CMD'), registryDirectory: relayRegistryDir };
}
