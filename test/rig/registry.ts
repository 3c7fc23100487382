import { chmod, mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';

/** The fields of a registration file; the original wrapper writes all but `id`. */
export interface Registration {
  readonly name: string;
  readonly hostname: string;
  /** The instance's port on the registry's machine: on a relay, a tunnel's. */
  readonly port: number;
  /** opencode's port on its own machine. */
  readonly localPort: number;
  readonly cwd: string;
  /** ISO 8601 in whole seconds, as the original writes it: `2026-01-01T00:00:00Z`. */
  readonly connectedAt: string;
  readonly id?: string;
}

export interface Registry {
  readonly path: string;
  /** Writes `<name>.json`, or `file`, by renaming a temporary file. Missing fields are filled in. */
  add(
    entry: Partial<Registration> & Pick<Registration, 'name' | 'port'>,
    options?: { readonly file?: string; readonly password?: string },
  ): Promise<string>;
  /** Removes the registration of that name, and with `id` its credential. Missing files are no error. */
  remove(name: string, id?: string): Promise<void>;
  /** Writes `<path>/.credentials/<id>`: folder 0700, file 0600. */
  setPassword(id: string, password: string): Promise<string>;
  /** Writes any content without the rename, for incomplete and hostile files. */
  writeRaw(file: string, content: string): Promise<string>;
}

/** A registry directory at `path`, created with mode 0700 if missing. */
export async function openRegistry(path: string): Promise<Registry> {
  await mkdir(path, { recursive: true, mode: 0o700 });
  let writeCount = 0;

  async function publish(target: string, content: string, mode: number): Promise<string> {
    const temporary = `${target}.tmp.${process.pid}.${++writeCount}`;
    await writeFile(temporary, content, { mode });
    await rename(temporary, target);
    return target;
  }

  async function setPassword(id: string, password: string): Promise<string> {
    const folder = join(path, '.credentials');
    await mkdir(folder, { recursive: true, mode: 0o700 });
    // The umask or an existing folder may have another mode.
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
