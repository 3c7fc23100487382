import { randomBytes } from 'node:crypto';
import { hostname, networkInterfaces } from 'node:os';
import { join } from 'node:path';

import { badPortReason } from '../../base/urls.ts';
import { systemClock } from '../../base/clock.ts';
import { type Settings, SettingsError } from '../../config/settings.ts';
import { readSecret } from '../../credentials/secret.ts';
import { createSecretCommands } from '../../credentials/secret-commands.ts';
import type { Logger } from '../../base/log.ts';
import type { Publisher } from '../../mdns/publisher.ts';
import { messageOf } from '../../base/errors.ts';
import { createOwnFile } from '../../base/files/own-file.ts';

const PASSWORD_BYTES = 32;

/** A password command may ask the person. */
const PASSWORD_LIMIT_MS = 60_000;

export function checkLan(settings: Pick<Settings, 'mdnsInterfaces' | 'connected'>, withPassword: boolean): void {
  if (!withPassword)
    throw new SettingsError(
      '--lan with --no-password: everyone on the LAN could run commands as you; leave one of the two out',
    );
  const { lanPort } = settings.connected;
  const badPort = lanPort === undefined ? undefined : badPortReason(lanPort);
  if (badPort !== undefined) throw new SettingsError(`OPENCODE_LAN_PORT: ${badPort}`);
  if (settings.mdnsInterfaces.length === 0)
    throw new SettingsError('--lan with OPENCODE_MDNS_INTERFACES=none: there is no interface to advertise on');
}

/** The wildcard address: of both families if this machine has IPv6. */
export function everyAddress(): string {
  const addresses = Object.values(networkInterfaces()).flatMap((found) => found ?? []);
  return addresses.some(({ family }) => family === 'IPv6') ? '::' : '0.0.0.0';
}

/**
 * The password for an instance on the LAN: the configured one, or one that is made once and kept, because other machines store it.
 * @throws {SettingsError} it cannot be read or written
 */
export async function lanPassword({
  defaultCredential,
  stateDir,
}: Pick<Settings, 'defaultCredential' | 'stateDir'>): Promise<string> {
  const signal = AbortSignal.timeout(PASSWORD_LIMIT_MS);
  const deps = { commands: createSecretCommands({ clock: systemClock, signal }) };
  const kept = {
    kind: 'file',
    path: lanPasswordPath(stateDir),
    ...(process.geteuid !== undefined && { ownerUid: process.geteuid() }),
  } as const;
  try {
    if (defaultCredential !== undefined) {
      const password = await readSecret(defaultCredential.password, deps, signal);
      if (password !== undefined) return password;
    }
    await createOwnFile(kept.path, `${randomBytes(PASSWORD_BYTES).toString('base64url')}\n`);
    return (await readSecret(kept, deps, signal)) ?? '';
  } catch (error) {
    throw new SettingsError(`--lan: ${messageOf(error)}`, { cause: error });
  }
}

export function lanPasswordPath(stateDir: string): string {
  return join(stateDir, 'lan', 'password');
}

export interface AdvertOptions {
  readonly id: string;
  readonly interfaces: Settings['mdnsInterfaces'];
  readonly logger: Logger;
}

export class LanAdvert {
  readonly #options: AdvertOptions;
  #publisher: Promise<Publisher> | undefined;
  #closed = false;

  constructor(options: AdvertOptions) {
    this.#options = options;
  }

  announce(name: string, { port, directory }: { readonly port: number; readonly directory?: string }): void {
    const { id, interfaces, logger } = this.#options;
    this.#publisher = import('../../mdns/publisher.ts').then(async ({ Publisher: Made }) => {
      const instance = { id, name, hostname: hostname(), ...(directory !== undefined && { directory }) };
      const publisher = new Made({ interfaces, clock: systemClock, logger, instance, listensOn: port });
      await publisher.open();
      if (publisher.problem !== undefined)
        logger.log('warn', 'not advertised on the LAN for now', { reason: publisher.problem });
      if (this.#closed) await publisher.close();
      return publisher;
    });
    this.#publisher.catch((error: unknown) => {
      logger.log('warn', 'not advertised on the LAN', { reason: String(error) });
    });
  }

  /** Sends a goodbye. Never rejects. */
  async close(): Promise<void> {
    this.#closed = true;
    const publisher = await this.#publisher?.catch(() => undefined);
    await publisher?.close();
  }
}
