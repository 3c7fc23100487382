/** Runs as a separate process for which the kernel refuses watches; prints its log and how listening ends. */
import { deferred, within } from '../rig/wait.ts';
import { registrySource } from './registry-stage.ts';

const log: unknown[] = [];
const refused = deferred<void>();
const source = registrySource(process.argv[2]!, {
  logger: {
    log: (...line) => {
      log.push(line);
      refused.resolve();
    },
  },
});
const never = new AbortController().signal;
const hint = source.changes(never)[Symbol.asyncIterator]().next();
await within(refused.promise, 'the refusal');
const { candidates } = await source.scan(never);
await source.scan(never);
await source.close();
process.stdout.write(JSON.stringify({ log, candidates: candidates.length, done: (await hint).done }));
