import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';

import type { Logger } from '../../base/log.ts';
import { type RunState, runStatePath } from '../run-state.ts';

/** Writes the state file of one wrapper, for `status` and `cleanup`. Writes run one after another and never reject. */
export class RunStateWriter {
  readonly path: string;
  readonly #logger: Logger;
  #last: Promise<void> = Promise.resolve();

  constructor(stateDir: string, id: string, logger: Logger) {
    this.path = runStatePath(stateDir, id);
    this.#logger = logger;
  }

  write(state: RunState): Promise<void> {
    return this.#then(async () => {
      await mkdir(dirname(this.path), { recursive: true, mode: 0o700 });
      // Each file has one writer. The guard knows this name.
      const temporary = `${this.path}.tmp`;
      await writeFile(temporary, `${JSON.stringify(state)}\n`, { mode: 0o600 });
      await rename(temporary, this.path);
    });
  }

  remove(): Promise<void> {
    return this.#then(() => rm(this.path, { force: true }));
  }

  #then(work: () => Promise<void>): Promise<void> {
    this.#last = this.#last.then(work).catch((error: unknown) => {
      this.#logger.log('warn', 'cannot keep the state file', { path: this.path, reason: String(error) });
    });
    return this.#last;
  }
}
