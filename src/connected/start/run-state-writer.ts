import { rm } from 'node:fs/promises';

import { replaceOwnFile } from '../../base/files/own-file.ts';
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
    // Each file has one writer. The guard removes the temporary file by its name.
    return this.#then(() => replaceOwnFile(this.path, `${JSON.stringify(state)}\n`, `${this.path}.tmp`));
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
