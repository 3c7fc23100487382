/** Runs in a process whose watches the kernel refuses. Prints the log, the number of candidates, and whether `changes` ended. */
import { deferred, within } from '../rig/wait.ts';
import { registrySource } from './registry-stage.ts';

const log: unknown[] = [];
const refusalLogged = deferred<void>();
const source = registrySource(process.argv[2]!, {
  logger: {
    log: (...line) => {
      log.push(line);
      refusalLogged.resolve();
    },
  },
});
const neverAborted = new AbortController().signal;
const nextChange = source.changes(neverAborted)[Symbol.asyncIterator]().next();
await within(refusalLogged.promise, 'the refusal');
const { candidates } = await source.scan(neverAborted);
await source.scan(neverAborted);
await source.close();
process.stdout.write(JSON.stringify({ log, candidates: candidates.length, done: (await nextChange).done }));
