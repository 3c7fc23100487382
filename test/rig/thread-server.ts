import { setImmediate as nextTurn } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';

/** An HTTP server in its own thread, which answers while this thread is busy. */
export interface ThreadServer extends AsyncDisposable {
  readonly url: string;
  /** Resolves in the turn of the event loop in which the request for `path` arrives, before its answer is read. */
  asked(path: string): Promise<void>;
  /** Blocks this thread until the answer to `path` is in its socket. */
  blockUntilAnswered(path: string): void;
  close(): Promise<void>;
}

const ASKED = 1;
const ANSWERED = 2;
const MAX_BLOCK_MS = 30_000;

/** Serves each path's JSON, with any content type. */
export async function startThreadServer(
  bodies: Readonly<Record<string, unknown>>,
  contentType = 'application/json',
): Promise<ThreadServer> {
  const paths = Object.keys(bodies);
  const progress = new Int32Array(new SharedArrayBuffer(4 * paths.length));
  const worker = new Worker(
    `const { parentPort, workerData: { bodies, paths, progress, contentType } } = require('node:worker_threads');
    const server = require('node:http').createServer((request, response) => {
      const index = paths.indexOf(request.url);
      const report = (value) => { Atomics.store(progress, index, value); Atomics.notify(progress, index); };
      report(${ASKED});
      const body = JSON.stringify(bodies[request.url]);
      response.writeHead(200, { 'content-type': contentType, 'content-length': Buffer.byteLength(body) });
      response.end(body, () => setImmediate(() => report(${ANSWERED})));
    });
    server.listen(0, '127.0.0.1', () => parentPort.postMessage(server.address().port));`,
    { eval: true, workerData: { bodies, paths, progress, contentType } },
  );
  const port = await new Promise<number>((resolve, reject) => {
    worker.once('message', resolve);
    worker.once('error', reject);
  });
  const close = async (): Promise<void> => void (await worker.terminate());
  return {
    url: `http://127.0.0.1:${port}`,
    async asked(path) {
      while (Atomics.load(progress, paths.indexOf(path)) < ASKED) await nextTurn();
    },
    blockUntilAnswered(path) {
      while (Atomics.load(progress, paths.indexOf(path)) < ANSWERED) {
        Atomics.wait(progress, paths.indexOf(path), ASKED, MAX_BLOCK_MS);
      }
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}
