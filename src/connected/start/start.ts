import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';

import type { Logger } from '../../base/log.ts';
import type { Settings } from '../../config/settings.ts';
import type { ProcessIdentity } from '../process-table.ts';
import { relayCommand } from '../relay/ssh-command.ts';
import type { OpencodeGeneration } from '../service/generation.ts';
import { rememberedGeneration } from '../service/remembered-generation.ts';
import { checkServiceArguments } from '../service/service-arguments.ts';
import { childEnvironment, personsEnvironment } from './child-environment.ts';
import { Guard } from './guard.ts';
import { defaultName, serviceName } from '../../identity/default-name.ts';
import { checkInstanceName } from './instance-name.ts';
import { checkLan, everyAddress, LanAdvert, lanPassword } from './lan.ts';
import { fileLogger, logPath } from './log-file.ts';
import type { Ending } from './opencode-process.ts';
import { findOpencode } from './opencode-program.ts';
import { OwnRegistrations, type Ports, type RegistrationsOptions } from './registrations.ts';
import { passSignals } from './signals.ts';
import { refuseTooOld, Supervised } from './supervised.ts';
import { rememberTerminal } from './terminal.ts';

export interface StartOptions {
  readonly settings: Settings;
  readonly headless: boolean;
  readonly withPassword: boolean;
  readonly onLan: boolean;
  /** Where opencode works: absolute, without links. */
  readonly directory: string;
  readonly forOpencode: readonly string[];
  readonly process: NodeJS.Process;
  readonly tell: (line: string) => void;
}

/** What both generations need. */
export interface Prepared {
  readonly program: string;
  readonly env: Readonly<Record<string, string>>;
  readonly logger: Logger;
  readonly guard: Guard;
  readonly registration: Omit<RegistrationsOptions, 'password' | 'relayPassword'>;
  /** Undefined without --lan. */
  readonly advert: LanAdvert | undefined;
}

const ID_BYTES = 12;
const PASSWORD_BYTES = 32;

/**
 * Starts opencode, registers it here and on the relay while it answers, and ends with it. Resolves with how it ended.
 * @throws {SettingsError} before anything was started
 * @throws {ReportedError} opencode cannot do what it should
 */
export async function start(options: StartOptions): Promise<Ending> {
  const { settings, onLan, process, tell } = options;
  const { stateDir } = settings;
  const { opencodeBin, relaySshCommand } = settings.connected;
  if (onLan) checkLan(settings, options.withPassword);
  const program = await findOpencode(opencodeBin, process.env['PATH']);
  const logger = fileLogger(logPath(stateDir));
  const sshCommand = relaySshCommand === undefined ? undefined : relayCommand(relaySshCommand);
  const env = personsEnvironment(process.env);
  const generation = await rememberedGeneration(program, { env, stateDir });
  if (generation.number === 2) checkServiceArguments(options);
  else if (generation.version !== undefined) refuseTooOld(generation.version);
  const name = nameOf(options, generation);
  const guard = new Guard();
  const id = randomBytes(ID_BYTES).toString('base64url');
  const onSsh = (ssh: ProcessIdentity | undefined): void => guard.watch('ssh', ssh);
  const prepared: Prepared = {
    program,
    env,
    logger,
    guard,
    registration: { settings, sshCommand, id, name, onLan, logger, onSsh, tell },
    advert: onLan ? new LanAdvert({ id, interfaces: settings.mdnsInterfaces, logger }) : undefined,
  };
  if (generation.number === 1) return await startOpencode1(options, prepared);
  const { startOnService } = await import('../service/start-service.ts');
  return await startOnService({ ...options, ...prepared, generation });
}

async function startOpencode1(
  options: StartOptions,
  { program, logger, guard, registration, advert }: Prepared,
): Promise<Ending> {
  const { settings, headless, onLan, forOpencode, process, tell } = options;
  const password = await passwordOf(options);
  const registrations = new OwnRegistrations({ ...registration, password, relayPassword: password });
  const supervised = new Supervised({
    wantedPort: onLan ? settings.connected.lanPort : undefined,
    launch: {
      program,
      headless,
      ...(headless && { directory: options.directory }),
      host: onLan ? everyAddress() : '127.0.0.1',
      args: forOpencode,
      env: childEnvironment(process.env, password),
      ...(password !== undefined && { password }),
    },
    terminal: rememberTerminal(process),
    guard,
    logger,
  });
  const signals = passSignals(process, supervised);
  try {
    if (password === undefined) tell(NO_PASSWORD);
    if (onLan) tell(ON_LAN);
    await supervised.choosePort();
    guard.remove(registrations.stateFile);
    await registrations.connect(portsOf(supervised.port), signals.giveUp);
    if (signals.ended !== undefined) return { code: null, signal: signals.ended };
    signals.starting();
    return await supervised.run({
      answers(instance, port) {
        registrations.announce(instance);
        advert?.announce(registrations.name, { port, directory: instance.directory });
        if (headless) tell(`${registrations.name} answers at http://127.0.0.1:${port}; see opencode-connected status`);
      },
      moved: (port) => registrations.move(portsOf(port)),
    });
  } finally {
    await Promise.all([registrations.close(), advert?.close()]);
    guard.dismiss();
    signals.stop();
  }
}

function portsOf(port: number): Ports {
  return { own: port, tunnel: port };
}

const NO_PASSWORD =
  'without a password every user of this machine, everyone on the relay, and any web page that you open can run commands as you through it';

const ON_LAN =
  'listening on the LAN, over plain HTTP: others there can read the password and all traffic; opencode-connected status shows how to reach it from other machines';

async function passwordOf({ settings, withPassword, onLan }: StartOptions): Promise<string | undefined> {
  if (onLan) return lanPassword(settings);
  return withPassword ? randomBytes(PASSWORD_BYTES).toString('base64url') : undefined;
}

function nameOf({ settings, directory }: StartOptions, generation: OpencodeGeneration): string {
  const { instanceName } = settings.connected;
  if (instanceName !== undefined) return checkInstanceName(instanceName);
  if (generation.number === 2) return serviceName(hostname());
  return defaultName(hostname(), directory);
}
