import { chmod, mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';

/** The fields of a registration file, as the original writes them; `id` came with our own wrapper. */
export interface Registration {
  readonly name: string;
  readonly hostname: string;
  /** Where the registry's machine reaches the instance: a tunnel's port on a relay. */
  readonly port: number;
  /** Where opencode listens on its own machine. */
  readonly localPort: number;
  readonly cwd: string;
  /** ISO 8601 in whole seconds, as the original has it: `2026-01-01T00:00:00Z`. */
  readonly connectedAt: string;
  readonly id?: string;
}

export interface Registry {
  readonly path: string;
  /** Writes `<name>.json`, or `file` where given, to a temporary name and renames it. Missing fields are filled in. */
  add(
    entry: Partial<Registration> & Pick<Registration, 'name' | 'port'>,
    options?: { readonly file?: string; readonly password?: string },
  ): Promise<string>;
  /** Removes the registration of that name, and its credential where `id` is given. A missing file is no error. */
  remove(name: string, id?: string): Promise<void>;
  /** Writes `<path>/.credentials/<id>`: folder 0700, file 0600. */
  setPassword(id: string, password: string): Promise<string>;
  /** Writes anything under a name in the directory, without the rename: half-written and hostile files. */
  writeRaw(file: string, content: string): Promise<string>;
}

/** A registry directory at `path`, made (0700) if it is missing. */
export async function openRegistry(path: string): Promise<Registry> {
  await mkdir(path, { recursive: true, mode: 0o700 });
  let written = 0;

  async function publish(target: string, content: string, mode: number): Promise<string> {
    const temporary = `${target}.tmp.${process.pid}.${++written}`;
    await writeFile(temporary, content, { mode });
    await rename(temporary, target);
    return target;
  }

  async function setPassword(id: string, password: string): Promise<string> {
    const folder = join(path, '.credentials');
    await mkdir(folder, { recursive: true, mode: 0o700 });
    // The umask may have taken bits from, and an existing folder may have more than, what mkdir was told.
    await chmod(folder, 0o700);
    return publish(join(folder, id), `${password}\n`, 0o600);
  }

  return {
    path,
    setPassword,
    async add(entry, { file = `${entry.name}.json`, password } = {}) {
      if (password !== undefined) {
        if (entry.id === undefined) throw new Error('Expected an id together with a password, got none');
        await setPassword(entry.id, password);
      }
      const registration: Registration = {
        hostname: hostname(),
        localPort: entry.port,
        cwd: '/home/user/project',
        connectedAt: new Date().toISOString().replace(/\.\d+Z$/, 'Z'),
        ...entry,
      };
      return publish(join(path, file), `${JSON.stringify(registration)}\n`, 0o644);
    },
    async remove(name, id) {
      await rm(join(path, `${name}.json`), { force: true });
      if (id !== undefined) await rm(join(path, '.credentials', id), { force: true });
    },
    async writeRaw(file, content) {
      const target = join(path, file);
      await writeFile(target, content);
      return target;
    },
  };
}
